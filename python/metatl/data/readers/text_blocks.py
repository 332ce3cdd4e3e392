"""Reading a text file in blocks of whole lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from metatl.exceptions import DataError

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

# Larger blocks are not faster: the system has to provide their pages again for each.
_BLOCK_BYTES = 1 << 24
_LINE_BYTES = 1 << 26

_START_BYTES = 1 << 12
_OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Block(NamedTuple):
    """Whole lines, and the line number of the first, from 1."""

    text: str
    line: int


def read_blocks(
    file: io.BufferedReader, *, expected: str = "UTF-8 text, Parquet, or either of them gzipped"
) -> Iterator[Block]:
    """Cut a file into blocks of whole lines.

    Parameters
    ----------
    file : io.BufferedReader
        The unpacked file.
    expected : str
        The formats that the file may have, for errors.

    Yields
    ------
    Block
        About 16 MiB of lines, without a byte order mark.

    Raises
    ------
    DataError
        If the file is not UTF-8 text, if its lines end in a carriage return alone, or if a line is longer
        than 64 MiB.
    """
    _check_start(file.peek(_START_BYTES))
    line, rest = 1, b""
    while data := file.read(_BLOCK_BYTES):
        block = rest + data
        end = block.rfind(b"\n") + 1
        if end == 0 and len(block) > _LINE_BYTES:
            raise DataError(f"found a line of more than {_LINE_BYTES >> 20} MiB, expected text", line=line)
        rest = block[end:]
        if end > 0:
            yield Block(_decode(block[:end], line, expected), line)
            line += block.count(b"\n", 0, end)
    if rest:
        yield Block(_decode(rest, line, expected), line)


def _check_start(start: bytes) -> None:
    """Refuse what the first bytes show not to be lines of UTF-8."""
    for mark, encoding in _OTHER_MARKS.items():
        if start.startswith(mark):
            raise DataError(f"found {encoding} text, expected UTF-8; save the file as UTF-8", line=1)
    if b"\n" not in start and b"\r" in start.rstrip(b"\r"):
        raise DataError(
            "found lines that end in a carriage return alone, expected a line feed; save the file with the "
            "line ends of Unix or Windows",
            line=1,
        )


def skip_blank_lines(block: Block) -> Block:
    """Remove the blank lines at the start of a block."""
    text = block.text.lstrip("\r\n")
    return Block(text, block.line + block.text.count("\n", 0, len(block.text) - len(text)))


def _decode(data: bytes, line: int, expected: str) -> str:
    if line == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    nul = data.find(0)
    if nul >= 0:
        raise DataError(f"found a NUL byte, expected {expected}", line=line + data.count(b"\n", 0, nul))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        message = f"found the byte 0x{data[error.start]:02x}, expected {expected}"
        raise DataError(message, line=line + data.count(b"\n", 0, error.start)) from None
