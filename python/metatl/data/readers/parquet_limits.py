"""What a Parquet file claims to hold: read from its descriptions, without unpacking any of its values.

A few bytes can claim billions of values (one value and how often it repeats), in the footer at the end of the
file or in the header of any of its pages. A reader that believes them takes the memory first and looks later,
and a process that asks for more than there is ends. So the claims are added up here, and compared with each
other, before anything is unpacked. The names are those of parquet.thrift in the Parquet specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from metatl.data.readers.thrift_structures import Cursor, MalformedError, Structure, read_structure
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAGIC = b"PAR1"
_FRAME_BYTES = 12  # PAR1 at both ends, and the length of the footer
_MOST_FOOTER_BYTES = 32 << 20
_WIDTH = 16  # of a value in memory: that of a text's view, more than that of any number

# Field numbers.
_SCHEMA, _NUM_ROWS, _ROW_GROUPS, _KEY_VALUES = 2, 3, 4, 5
_ELEMENT_LENGTH, _ELEMENT_REPETITION, _ELEMENT_NAME, _ELEMENT_CHILDREN = 2, 3, 4, 5
_GROUP_COLUMNS, _GROUP_ROWS = 1, 3
_CHUNK_FILE, _CHUNK_DATA = 1, 3
_PATH, _NUM_VALUES, _PACKED_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 3, 5, 7, 9, 11
_PAGE_UNPACKED, _PAGE_PACKED, _PAGE_DATA, _PAGE_DICTIONARY, _PAGE_DATA_2 = 2, 3, 5, 7, 8
_PAGE_VALUES, _PAGE_ENCODING, _PAGE_2_ROWS, _PAGE_2_ENCODING = 1, 2, 3, 4
_DELTA_BYTE_ARRAY = 7
_REPEATED = 2


@dataclass(frozen=True)
class Claims:
    """The footer of a Parquet file.

    Attributes
    ----------
    names
        Names of the columns.
    group_rows
        Rows of each row group.
    metadata
        What the writer noted beside the columns.
    chunks
        The values of one column in one row group, each.
    """

    names: list[str]
    group_rows: list[int]
    metadata: dict[str, str]
    chunks: list[Chunk]

    @property
    def num_rows(self) -> int:
        """Rows of all row groups."""
        return sum(self.group_rows)


@dataclass(frozen=True)
class Chunk:
    """Where the values of a column in a row group are, and how many they are.

    Attributes
    ----------
    name
        The column.
    group
        The row group.
    is_flat
        Whether it has one value a row, and no lists.
    width
        Bytes that a value takes in memory, at most, beside those of a text.
    num_rows, num_values
        Rows of the row group, and values of the column, both as the footer has them.
    start, packed_bytes
        Its place in the file.
    """

    name: str
    group: int
    is_flat: bool
    width: int
    num_rows: int
    num_values: int
    start: int
    packed_bytes: int


def read_claims(content: Any) -> Claims:
    """Read the footer.

    Parameters
    ----------
    content
        The file: bytes, or a map of it in memory.

    Raises
    ------
    DataError
        If it is no Parquet file, or a damaged one.
    """
    size = len(content)
    if bytes(content[:4]) != MAGIC:
        raise DataError("found no Parquet, expected a file that starts with PAR1")
    if size < _FRAME_BYTES or bytes(content[-4:]) != MAGIC:
        raise _damaged("it ends early")
    footer_bytes = int.from_bytes(content[-8:-4], "little")
    if footer_bytes > size - _FRAME_BYTES:
        raise _damaged("it ends early")
    if footer_bytes > _MOST_FOOTER_BYTES:
        raise DataError(
            f"found a Parquet footer of {footer_bytes} bytes, expected at most {_MOST_FOOTER_BYTES}"
        )
    try:
        return _claims(read_structure(Cursor(content[size - 8 - footer_bytes : size - 8], 0)))
    except MalformedError as error:
        raise _damaged(str(error)) from None
    # What is missing, of another kind, or not text.
    except (LookupError, TypeError, AttributeError, ValueError):
        raise _damaged("its footer does not describe a table") from None


def row_groups(claims: Claims) -> list[Claims]:
    """Take a footer apart: one for each row group, as if the file had no other.

    Parameters
    ----------
    claims
        The footer.
    """
    chunks: list[list[Chunk]] = [[] for _ in claims.group_rows]
    for chunk in claims.chunks:
        chunks[chunk.group].append(chunk)
    return [
        Claims(claims.names, [num_rows], claims.metadata, mine)
        for num_rows, mine in zip(claims.group_rows, chunks, strict=True)
    ]


def claimed_bytes(claims: Claims, columns: Collection[str]) -> int:
    """Bound the memory that columns take, by what the footer says.

    Parameters
    ----------
    claims
        The footer.
    columns
        Names of the columns.

    Returns
    -------
    int
        Bytes; what the texts themselves take is not in the footer, and comes with :func:`check_pages`.
    """
    chunks = [chunk for chunk in claims.chunks if chunk.name in columns]
    return max(
        sum(chunk.width * max(chunk.num_rows, chunk.num_values) for chunk in chunks),
        claims.num_rows * _WIDTH * len(columns),
    )


def check_pages(content: Any, claims: Claims, columns: Collection[str], max_bytes: int) -> None:
    """Compare the headers of the pages with the footer.

    Parameters
    ----------
    content
        The file: bytes, or a map of it in memory.
    claims
        Its footer.
    columns
        Names of the columns that are going to be unpacked.
    max_bytes
        The most bytes that they may take.

    Raises
    ------
    DataError
        If the two contradict each other, or if the pages unpack to more than `max_bytes`.
    """
    refuse_overlaps(claims)
    total = claimed_bytes(claims, columns)
    try:
        for chunk in claims.chunks:
            if chunk.name in columns:
                total += _page_bytes(content, chunk)
                refuse_large(total, claims, max_bytes)
    except MalformedError as error:
        raise _damaged(str(error)) from None
    except (LookupError, TypeError, AttributeError):
        raise _damaged("it has a page without a description") from None


def refuse_overlaps(claims: Claims) -> None:
    """Raise DataError if columns share bytes: many could, and walking through them would take forever."""
    places = sorted((chunk.start, chunk.start + chunk.packed_bytes) for chunk in claims.chunks)
    if any(end > next_start for (_, end), (next_start, _) in pairwise(places)):
        raise _damaged("its columns overlap")


def refuse_large(num_bytes: int, claims: Claims, max_bytes: int) -> None:
    """Raise DataError if what is claimed is more than `max_bytes`."""
    if num_bytes > max_bytes:
        raise DataError(
            f"found a Parquet file that claims {_shown(num_bytes)} in {claims.num_rows} rows, "
            f"expected at most {_shown(max_bytes)}, for the memory of this machine"
        )


def _claims(footer: Structure) -> Claims:
    root, *elements = footer[_SCHEMA]
    columns = _columns(elements, root.get(_ELEMENT_CHILDREN, 0))
    chunks = [
        _chunk(chunk, columns, place, group[_GROUP_ROWS])
        for place, group in enumerate(footer[_ROW_GROUPS])
        for chunk in group[_GROUP_COLUMNS]
    ]
    group_rows = [group[_GROUP_ROWS] for group in footer[_ROW_GROUPS]]
    if sum(group_rows) != footer[_NUM_ROWS] or any(num_rows < 0 for num_rows in group_rows):
        raise MalformedError("its numbers of rows contradict each other")
    pairs = footer.get(_KEY_VALUES, [])
    metadata = {pair[1].decode(): pair.get(2, b"").decode() for pair in pairs}
    return Claims(list(columns), group_rows, metadata, chunks)


def _columns(elements: list[Structure], num_columns: int) -> dict[str, tuple[bool, int]]:
    """Whether each column is flat, and the width of its values. Elements come with what is in them behind."""
    columns: dict[str, tuple[bool, int]] = {}
    position = 0
    for _ in range(num_columns):
        name = elements[position][_ELEMENT_NAME].decode()
        if name in columns:
            raise MalformedError(f"it has two columns {name[:60]!r}")
        start, remaining = position, 1
        while remaining > 0:
            remaining += elements[position].get(_ELEMENT_CHILDREN, 0) - 1
            position += 1
        inside = elements[start:position]
        is_flat = all(element.get(_ELEMENT_REPETITION, 0) != _REPEATED for element in inside)
        columns[name] = is_flat, max(_WIDTH, *(element.get(_ELEMENT_LENGTH, 0) for element in inside))
    return columns


def _chunk(chunk: Structure, columns: dict[str, tuple[bool, int]], group: int, num_rows: int) -> Chunk:
    if chunk.get(_CHUNK_FILE):
        raise MalformedError("its values are in another file")
    data = chunk[_CHUNK_DATA]
    name = data[_PATH][0].decode()
    # 0 says that there is no such page, as there are none of data in a table without rows.
    offsets = (data[_DATA_OFFSET], data.get(_DICTIONARY_OFFSET, 0))
    start = min((offset for offset in offsets if offset), default=0)
    found = Chunk(name, group, *columns[name], num_rows, data[_NUM_VALUES], start, data[_PACKED_BYTES])
    if min(found.num_values, found.start, found.packed_bytes) < 0:
        raise MalformedError("its footer has a negative number")
    if found.is_flat and found.num_values != num_rows:
        raise MalformedError(f"its column {name[:60]!r} has {found.num_values} values in {num_rows} rows")
    return found


def _page_bytes(content: Any, chunk: Chunk) -> int:
    """Bytes of the pages of a chunk when unpacked, and of the values of its dictionary."""
    unpacked = num_values = 0
    for page in _pages(content, chunk):
        if page[_PAGE_UNPACKED] < 0:
            raise MalformedError("it has a page of a negative size")
        unpacked += page[_PAGE_UNPACKED]
        if _PAGE_DICTIONARY in page:
            entries = page[_PAGE_DICTIONARY][_PAGE_VALUES]
            # An entry takes a byte at least, in all kinds of dictionaries.
            if not 0 <= entries <= page[_PAGE_UNPACKED]:
                raise MalformedError("it has a dictionary with more entries than bytes")
            unpacked += chunk.width * entries
            continue
        if _PAGE_DATA_2 in page:
            data = page[_PAGE_DATA_2]
            values, rows, encoding = data[_PAGE_VALUES], data[_PAGE_2_ROWS], data[_PAGE_2_ENCODING]
        else:
            data = page[_PAGE_DATA]
            values, rows, encoding = data[_PAGE_VALUES], 0, data[_PAGE_ENCODING]
        num_values += values
        if not 0 <= rows <= values or num_values > chunk.num_values:
            raise MalformedError(f"a page has more values than the footer says: {chunk.num_values}")
        if encoding == _DELTA_BYTE_ARRAY:
            # A text is what it shares with the one before, and some more: the lengths are not told.
            raise DataError(
                "found the encoding DELTA_BYTE_ARRAY, from which the unpacked size cannot be told; "
                "write the file with another one",
                column=chunk.name,
            )
    if num_values != chunk.num_values:
        raise MalformedError(f"its pages have {num_values} values, and the footer says {chunk.num_values}")
    return unpacked


def _pages(content: Any, chunk: Chunk) -> Iterator[Structure]:
    """Go through the headers of the pages of a chunk; without its index pages, which hold no values."""
    cursor = Cursor(content, chunk.start)
    end = chunk.start + chunk.packed_bytes
    while cursor.position < end:
        page = read_structure(cursor)
        if page[_PAGE_PACKED] < 0 or page[_PAGE_PACKED] > len(content) - cursor.position:
            raise MalformedError("it has a page that is longer than the file")
        cursor.position += page[_PAGE_PACKED]
        if not {_PAGE_DATA, _PAGE_DATA_2, _PAGE_DICTIONARY}.isdisjoint(page):
            yield page


def _damaged(reason: str) -> DataError:
    return DataError(f"found a damaged Parquet file ({reason})")


def _shown(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1_000:  # noqa: PLR2004
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.0f} PB"
