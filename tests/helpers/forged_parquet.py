"""Parquet files that claim what they do not hold: what polars wrote, described anew.

Thrift's structures are dicts of field numbers to pairs of kind and value, so that they are written again as
they were. The numbers are those of parquet.thrift.
"""

from __future__ import annotations

import copy
import io

import polars as pl

INTEGER, BINARY, LIST, STRUCTURE = 6, 8, 9, 12


class Reader:
    def __init__(self, content, position):
        self.content, self.position = content, position

    def byte(self):
        self.position += 1
        return self.content[self.position - 1]

    def unsigned(self):
        byte = self.byte()
        return byte if byte < 0x80 else byte - 0x80 + (self.unsigned() << 7)

    def integer(self):
        number = self.unsigned()
        return -(number + 1) // 2 if number % 2 else number // 2

    def value(self, kind):
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self.integer()
        if kind == BINARY:
            count = self.unsigned()
            self.position += count
            return self.content[self.position - count : self.position]
        if kind == LIST:
            head = self.byte()
            count = head >> 4 if head >> 4 < 15 else self.unsigned()
            return head & 15, [self.value(head & 15) for _ in range(count)]
        assert kind == STRUCTURE
        fields, number = {}, 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            fields[number] = (head & 15, self.value(head & 15))
        return fields


def unsigned(number):
    return bytes([number]) if number < 0x80 else bytes([number % 0x80 + 0x80]) + unsigned(number >> 7)


def integer(number):
    return unsigned(2 * number if number >= 0 else -2 * number - 1)


def encoded(kind, value):
    if kind in (1, 2):
        return b""
    if kind in (4, 5, 6):
        return integer(value)
    if kind == BINARY:
        return unsigned(len(value)) + value
    if kind == LIST:
        parts = b"".join(encoded(value[0], part) for part in value[1])
        return bytes([0xF0 + value[0]]) + unsigned(len(value[1])) + parts
    assert kind == STRUCTURE
    parts = (bytes([kind]) + integer(number) + encoded(kind, part) for number, (kind, part) in value.items())
    return b"".join(parts) + b"\0"


class Forgery:
    """A file with one column in one row group, in parts that can be changed.

    `footer`, `group`, `chunk` and the headers of `pages` are structures; `pages` are pairs of header and
    bytes.
    """

    def __init__(self, column, **options):
        content = io.BytesIO()
        pl.DataFrame({"a": column}).write_parquet(content, statistics=False, **options)
        content = content.getvalue()
        footer_bytes = int.from_bytes(content[-8:-4], "little")
        self.footer = Reader(content, len(content) - 8 - footer_bytes).value(STRUCTURE)
        (self.group,) = self.footer[4][1][1]
        (column_chunk,) = self.group[1][1][1]
        self.chunk = column_chunk[3][1]
        reader = Reader(content, min(self.chunk[field][1] for field in (9, 11) if field in self.chunk))
        end = reader.position + self.chunk[7][1]
        self.pages = []
        while reader.position < end:
            header = reader.value(STRUCTURE)
            size = header[3][1]
            self.pages.append((header, content[reader.position : reader.position + size]))
            reader.position += size

    @property
    def data(self):
        """The description of the last page: that of values."""
        header = self.pages[-1][0]
        return header[8 if 8 in header else 5][1]

    def claim(self, structure, field, value):
        structure[field] = (structure.get(field, (INTEGER, 0))[0], value)
        return self

    def claim_rows(self, rows):
        for structure, field in ((self.footer, 3), (self.group, 3), (self.chunk, 5)):
            self.claim(structure, field, rows)
        return self

    def content(self, groups=1):
        """Put the parts together, the row group as often as is said, all with the same values."""
        body, starts = b"PAR1", []
        for header, values in self.pages:
            starts.append(len(body))
            body += encoded(STRUCTURE, header) + values
        if 11 in self.chunk:
            self.claim(self.chunk, 11, starts[0])
        self.claim(self.chunk, 9, starts[-1])
        self.claim(self.chunk, 7, len(body) - 4)
        footer = copy.deepcopy(self.footer)
        footer[4] = (LIST, (STRUCTURE, [self.group] * groups))
        self.claim(footer, 3, footer[3][1] * groups)
        description = encoded(STRUCTURE, footer)
        return body + description + len(description).to_bytes(4, "little") + b"PAR1"
