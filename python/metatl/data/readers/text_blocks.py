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
        If the file is not UTF-8 text, or if a line is longer than 64 MiB.
    """
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
