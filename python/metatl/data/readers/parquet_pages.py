"""Checking the counts and sizes that a Parquet file states, before memory is reserved for them.

polars reserves memory for the number of values that a page claims to hold, and a lack of memory there ends
the process. The footer and the headers of pages are structures of Thrift's compact protocol, as in
https://parquet.apache.org/docs/file-format/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

Structure: TypeAlias = dict[int, Any]
"""The values of a structure of Thrift by the number of their field."""

_FOOTER_END = 8  # the length of the footer as four bytes, and PAR1
# Statistics in the header of a page can hold a long text, so a header that ends early is read again.
_HEADER_BYTES = (512, 1 << 16, 1 << 24)
_DEEPEST = 32

# Types of the compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCTURE = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_INTEGER_BITS = 64
_DOUBLE_BYTES = 8
_LONG_LIST = 15  # the size follows as an integer

# Fields of parquet.thrift.
_FILE_ROWS, _FILE_GROUPS = 3, 4
_GROUP_CHUNKS, _GROUP_ROWS = 1, 3
_CHUNK_COLUMN = 3
_COLUMN_PATH, _COLUMN_VALUES, _COLUMN_DATA, _COLUMN_DICTIONARY = 3, 5, 9, 11
_PAGE_TYPE, _PAGE_UNPACKED, _PAGE_PACKED = 1, 2, 3
_PAGE_COUNTS = {0: 5, 2: 7, 3: 8}  # the field with the counts of a data page, a dictionary, a newer data page
_DICTIONARY = 2
_COUNT_VALUES = 1


def check_pages(file: BinaryIO, columns: Collection[str], max_bytes: int) -> None:
    """Refuse a Parquet file whose pages cannot hold what they claim.

    Parameters
    ----------
    file : binary file
        The file, open for reading, with PAR1 at both ends.
    columns : collection of str
        The columns that will be read; pages of others are not visited.
    max_bytes : int
        The largest size of a page and the largest number of values of a column, in bytes.

    Raises
    ------
    DataError
        If a count or a size is negative, larger than what is there, or differs from that of the footer.
    """
    try:
        _check_file(file, columns, max_bytes)
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, _MalformedError):
        raise DataError("found a damaged Parquet file (its structure is broken)") from None


class _MalformedError(Exception):
    """Bytes that are no structure of the compact protocol."""


def _check_file(file: BinaryIO, columns: Collection[str], max_bytes: int) -> None:
    size = file.seek(0, 2)
    file.seek(size - _FOOTER_END)
    length = int.from_bytes(file.read(4), "little")
    if length > size - _FOOTER_END:
        raise DataError("found a damaged Parquet file (its footer is longer than the file)")
    file.seek(size - _FOOTER_END - length)
    footer = _Reader(file.read(length)).structure()
    groups = footer.get(_FILE_GROUPS, [])
    if sum(group[_GROUP_ROWS] for group in groups) != footer[_FILE_ROWS]:
        raise DataError("found a damaged Parquet file (the rows of its groups are not the rows of the file)")
    for group in groups:
        for chunk in group[_GROUP_CHUNKS]:
            column = chunk[_CHUNK_COLUMN]
            path = column[_COLUMN_PATH]
            name = path[0].decode()
            if name in columns:
                values = column[_COLUMN_VALUES]
                # A nested column has other numbers of values than rows.
                if values < 0 or values > max_bytes or (len(path) == 1 and values != group[_GROUP_ROWS]):
                    raise _wrong(name, f"{values} values in {group[_GROUP_ROWS]} rows")
                _check_chunk(file, name, column, max_bytes)


def _check_chunk(file: BinaryIO, name: str, column: Structure, max_bytes: int) -> None:
    # Some writers state 0 for a dictionary that is not there.
    starts = [column[_COLUMN_DATA], column.get(_COLUMN_DICTIONARY, 0)]
    position = min(start for start in starts if start > 0)
    end = file.seek(0, 2)
    remaining = column[_COLUMN_VALUES]
    while remaining > 0:
        header, header_bytes = _page_header(file, position)
        packed, unpacked = header[_PAGE_PACKED], header[_PAGE_UNPACKED]
        position += header_bytes + packed
        if packed < 0 or position > end or unpacked < 0:
            raise _wrong(name, f"a page of {packed} bytes that unpacks to {unpacked}")
        if unpacked > max_bytes:
            raise DataError(
                f"found a page of column {name!r} that takes {unpacked / 1e6:,.0f} MB, expected at most "
                f"{max_bytes / 1e6:,.0f} MB for the memory of this machine"
            )
        kind = header[_PAGE_TYPE]
        if kind not in _PAGE_COUNTS:
            continue
        values = header[_PAGE_COUNTS[kind]][_COUNT_VALUES]
        if kind == _DICTIONARY:
            if not 0 <= values <= unpacked:
                raise _wrong(name, f"a dictionary of {values} values in {unpacked} bytes")
        elif 0 <= values <= remaining:
            remaining -= values
        else:
            raise _wrong(name, f"a page of {values} values where {remaining} remain")


def _wrong(column: str, found: str) -> DataError:
    return DataError(f"found a damaged Parquet file (column {column!r} has {found})")


def _page_header(file: BinaryIO, position: int) -> tuple[Structure, int]:
    """Read the header of a page; return it and its length."""
    for length in _HEADER_BYTES:
        file.seek(position)
        content = file.read(length)
        reader = _Reader(content)
        try:
            return reader.structure(), reader.position
        except IndexError:
            if len(content) < length:
                raise
    raise _MalformedError


@dataclass
class _Reader:
    """Reads values of the compact protocol one after the other; an `IndexError` is the end of the bytes."""

    content: bytes
    position: int = 0

    def structure(self, depth: int = 0) -> Structure:
        """Read a structure."""
        if depth > _DEEPEST:
            raise _MalformedError
        values: Structure = {}
        field = 0
        while (head := self._byte()) != 0:
            delta, kind = head >> 4, head & 15
            field = field + delta if delta else self._integer()
            values[field] = kind == _TRUE if kind in {_TRUE, _FALSE} else self._value(kind, depth)
        return values

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind in {_BINARY, _DOUBLE}:
            return self._bytes(self._varint() if kind == _BINARY else _DOUBLE_BYTES)
        if kind == _STRUCTURE:
            return self.structure(depth + 1)
        if kind in {_LIST, _SET}:
            return self._list(depth + 1)
        if kind == _MAP:
            return self._map(depth + 1)
        if kind in {_BYTE, _TRUE, _FALSE}:  # a truth value in a list takes a byte
            return self._byte()
        raise _MalformedError

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEEPEST:
            raise _MalformedError
        head = self._byte()
        size = head >> 4 if head >> 4 < _LONG_LIST else self._varint()
        # Every value takes a byte, so a wrong size ends at the end of the bytes.
        return [self._value(head & 15, depth) for _ in range(size)]

    def _map(self, depth: int) -> list[tuple[Any, Any]]:
        if depth > _DEEPEST:
            raise _MalformedError
        size = self._varint()
        kinds = self._byte() if size else 0
        return [(self._value(kinds >> 4, depth), self._value(kinds & 15, depth)) for _ in range(size)]

    def _byte(self) -> int:
        value = self.content[self.position]
        self.position += 1
        return value

    def _bytes(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.content):
            raise IndexError
        value = self.content[self.position : end]
        self.position = end
        return value

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift >= _INTEGER_BITS:
                raise _MalformedError
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
