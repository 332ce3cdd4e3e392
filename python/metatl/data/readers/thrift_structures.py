"""Thrift's compact protocol: the form of the structures that a Parquet file describes itself with.

A structure comes back as a dict from field numbers to values, read as the Thrift specification of the compact
protocol says. Nothing that the bytes claim is believed before the bytes are there: a count or a length that
is longer than the rest of them is an error, and so is deep nesting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Structure: TypeAlias = dict[int, Any]
"""Field numbers to values: int, bool, bytes, list or another structure."""

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCTURE = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_DEEPEST = 16
_LONGEST_INTEGER = 64
_LONG_LIST = 15


class MalformedError(ValueError):
    """The bytes are no structure of the compact protocol."""


@dataclass
class Cursor:
    """A place in bytes.

    Attributes
    ----------
    content
        The bytes, or a file that is mapped into memory.
    position
        The next byte to read.
    """

    content: Any
    position: int

    def take(self, count: int) -> bytes:
        """Read `count` bytes."""
        if count > len(self.content) - self.position:
            raise MalformedError("its description ends early")
        start = self.position
        self.position += count
        return bytes(self.content[start : self.position])


def read_structure(cursor: Cursor, depth: int = 0) -> Structure:
    """Read a structure, and leave the cursor behind it.

    Parameters
    ----------
    cursor
        Where it starts.
    depth
        How many structures and lists it is in.

    Returns
    -------
    dict
        Field numbers to values. Enumerations are int, text is bytes.

    Raises
    ------
    MalformedError
        If it is none.
    """
    if depth > _DEEPEST:
        raise MalformedError("its description is nested too deeply")
    fields: Structure = {}
    number = 0
    while (head := cursor.take(1)[0]) != 0:
        number = number + (head >> 4) if head >> 4 else _read_integer(cursor)
        kind = head & 0x0F
        fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else _read_value(cursor, kind, depth)
    return fields


def _read_value(cursor: Cursor, kind: int, depth: int) -> Any:
    if kind in _INTEGERS:
        return _read_integer(cursor)
    if kind == _BINARY:
        return cursor.take(_read_unsigned(cursor))
    if kind == _STRUCTURE:
        return read_structure(cursor, depth + 1)
    if kind in (_LIST, _SET):
        return _read_list(cursor, depth + 1)
    if kind in (_TRUE, _FALSE, _BYTE):
        return cursor.take(1)[0]
    if kind == _DOUBLE:
        return cursor.take(8)
    raise MalformedError(f"its description has a value of the unknown kind {kind}")


def _read_list(cursor: Cursor, depth: int) -> list[Any]:
    if depth > _DEEPEST:
        raise MalformedError("its description is nested too deeply")
    head = cursor.take(1)[0]
    count = head >> 4
    if count == _LONG_LIST:
        count = _read_unsigned(cursor)
    # Every value takes a byte at least.
    if count > len(cursor.content) - cursor.position:
        raise MalformedError("its description ends early")
    return [_read_value(cursor, head & 0x0F, depth) for _ in range(count)]


def _read_integer(cursor: Cursor) -> int:
    number = _read_unsigned(cursor)
    return (number >> 1) ^ -(number & 1)


def _read_unsigned(cursor: Cursor) -> int:
    number = shift = 0
    while True:
        byte = cursor.take(1)[0]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 (the bit that says that another byte follows)
            return number
        shift += 7
        if shift >= _LONGEST_INTEGER:
            raise MalformedError("its description has an integer of more than 64 bits")
