"""Damage files in reproducible ways: bytes, text, and formats whose checksums or headers hide the rest.

Each function takes a generator and the bytes of a valid file and returns other bytes.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import struct
import zipfile
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    Mutator = Callable[[Random, bytes], bytes]

WORDS = (
    '"', '""', "'", ",", ",,", "\t", ";", "|", "::", " ", "  ", "\n", "\n\n", "\r", "\r\n", "\0", "\\",
    "#", "# x\n", "\ufeff", "\u00a0", "\u2028", "\x85", "\x0b", "\x1a", "é", "٣", "１", "𝟙", "nan", "NaN",
    "inf", "-inf", "Infinity", "NULL", "null", "NA", "None", "N/A", "true", "-", "+", ".", "e", "0", "-0",
    "-1", "1.0", "1.", ".5", "+5", "1_0", "0x1F", "00012", "1e3", "1e309", "1e-400", "1E+02", "9" * 19,
    "9" * 40, "-9223372036854775808", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "16777217", "20130405", "2013-04-05", "2013-04-05T06:07:08Z", "2013-04-05 06:07:08+05:30",
    "2013-02-30", "0001-01-01", "9999-12-31T23:59:59", "{", "}", "{}", "[", "]", "[1]", '{"a":', "user_id",
    "item_id", "timestamp", "score", "target", "count", "a" * 3000,
)  # fmt: skip
BAD_BYTES = (
    b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\x1f\x8b", b"PK\x03\x04", b"PAR1",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1, -(2**63),
)  # fmt: skip


def damage(random: Random, content: bytes) -> bytes:
    """Flip, cut, insert, copy, move or overwrite bytes."""
    data = bytearray(content)
    start = random.randrange(len(data) + 1)
    length = random.choice((1, 1, 2, 4, 8, random.randrange(1, 64), random.randrange(1, len(data) + 2)))
    match random.randrange(9):
        case 0 | 1:
            for _ in range(random.choice((1, 1, 1, 3, 20))):
                if data:
                    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case 2:
            del data[start:]
        case 3:
            data[start:start] = random.choice((random.choice(BAD_BYTES), random.randbytes(min(length, 64))))
        case 4:
            del data[start : start + length]
        case 5:
            data[start:start] = data[start : start + min(length, 4096)]
        case 6:
            block = data[start : start + length]
            del data[start : start + length]
            other = random.randrange(len(data) + 1)
            data[other:other] = block
        case 7:
            length = len(data[start : start + length])
            data[start : start + length] = random.choice((b"\0", b"\xff", b"0")) * length
        case _:
            data[start : start + 8] = _number(random)[: len(data[start : start + 8])]
    return bytes(data)


def _number(random: Random) -> bytes:
    number = random.choice(NUMBERS)
    size = random.choice((1, 2, 4, 8))
    return (number & (2 ** (8 * size) - 1)).to_bytes(size, random.choice(("little", "big")))


def damage_text(random: Random, content: bytes) -> bytes:
    """Put words, fields and lines where they do not belong."""
    if random.random() < 0.25:
        return damage(random, content)
    text = content.decode("utf-8", errors="surrogateescape")
    lines = text.split("\n")
    line = random.randrange(len(lines))
    word = random.choice(WORDS)
    match random.randrange(9):
        case 0:
            position = random.randrange(len(text) + 1)
            return _encoded(text[:position] + word + text[position:])
        case 1 | 2 | 3:
            separator = next((one for one in ("::", "\t", ",", " ") if one in lines[line]), ",")
            fields = lines[line].split(separator)
            fields[random.randrange(len(fields))] = word
            lines[line] = separator.join(fields)
        case 4:
            lines.insert(line, random.choice(("", " ", word, lines[line], lines[line] + word, lines[0])))
        case 5:
            del lines[line : line + random.choice((1, 1, 2, len(lines)))]
        case 6:
            other = random.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
        case 7:
            separator = next((one for one in ("::", "\t", ",", " ") if one in text), ",")
            new = random.choice(("\t", ",", ";", "::", " ", "|", ", ", ""))
            return _encoded(text.replace(separator, new, random.choice((-1, 1, 5))))
        case _:
            ending = random.choice(("\r\n", "\r", "\n\n", "\n ", ""))
            prefix = random.choice(("", "", "\ufeff", "\n", "\ufeff\ufeff", "\0"))
            return _encoded(prefix + text.replace("\n", ending, random.choice((-1, -1, 1))))
    return _encoded("\n".join(lines))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def gzipped(mutator: Mutator) -> Mutator:
    """Damage what is in a gzip, or the gzip."""

    def damage_gzip(random: Random, content: bytes) -> bytes:
        match random.randrange(4):
            case 0:
                return damage(random, content)
            case 1:
                tail = random.choice(
                    (content, b"\0" * 8, b"junk", gzip.compress(b"u1,i1,1\n", 1), content[:20])
                )
                return content + tail
            case _:
                return gzip.compress(mutator(random, gzip.decompress(content)), 1, mtime=0)

    return damage_gzip


DESCRS = (
    "<f4", ">f4", "<f8", "<f2", "<i8", "|u1", "|b1", "|O", "<U4", "|S3", "|V16", "<c8", "<M8[s]", "<m8",
    "f4", "=f4", "", "<f4,<f4", "|S1000000000", "x" * 200, [("a", "<f4")], [("a", "<f4", (2, 2))], [], None,
    4, {}, [("a", "<f4"), ("a", "<f4")],
)  # fmt: skip
SHAPES = (
    (10**12,), (10**6, 10**6), (-1, 5), (True, 3), ("a",), (2**63, 2), (2**64,), (), (3,), (0, 0), (0,), 5,
    (1.5, 2), None, [3, 4], (1,) * 40, (2,) * 70, (None, 2),
)  # fmt: skip
HEADERS = (("descr", DESCRS), ("shape", SHAPES), ("fortran_order", (True, 1, None, "False", 0, [])))
HEADER_TEXTS = (
    "(" * 300, "{" * 100, "[" * 5000, "-" * 20000, "{'descr'", "1", "{}", "'", "", "f('')", "{**{}}",
    "lambda: 0", "9" * 5000, "\0", "{'shape': (" + "1," * 3000 + ")}",
)  # fmt: skip


def damage_npy(random: Random, content: bytes) -> bytes:
    """Damage an `.npy` file, mostly its header, whose length stays right."""
    if random.random() < 0.2:
        return damage(random, content)
    size = 2 if content[6] == 1 else 4
    length = int.from_bytes(content[8 : 8 + size], "little")
    header, data = content[8 + size : 8 + size + length], content[8 + size + length :]
    fields = ast.literal_eval(header.decode("latin-1").strip())
    match random.randrange(6):
        case 0 | 1:
            name, values = random.choice(HEADERS)
            fields[name] = random.choice(values)
            if random.random() < 0.1:
                fields[random.choice(("extra", "descr ", 1))] = 0
            text = repr(fields)
        case 2:
            del fields[random.choice(list(fields))]
            text = repr(fields)
        case 3:
            text = damage_text(random, header).decode("latin-1")
        case 4:
            text = random.choice(HEADER_TEXTS)
        case _:
            return content[: 8 + size + length] + damage(random, data)
    encoded = text.encode("latin-1", errors="replace")
    encoded += b" " * (-(10 + len(encoded) + 1) % 64) + b"\n"
    version = random.choice((1, 1, 1, 1, 1, 2, 3, 0, 4, 255))
    if len(encoded) > 65535 or version != 1:
        return b"\x93NUMPY" + bytes((max(version, 2), 0)) + struct.pack("<I", len(encoded)) + encoded + data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + data


def zipped(mutator: Mutator) -> Mutator:
    """Damage a member of a zip archive, whose checksum is made to fit, or the fields of the archive."""

    def damage_zip(random: Random, content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        kind = random.randrange(5)
        if kind == 0:
            return damage(random, content)
        if kind == 1:
            data = bytearray(content)
            # Version, flags, method, checksum and sizes, in the local header or the central directory.
            signature, first, last = random.choice(
                ((b"PK\x03\x04", 4, 30), (b"PK\x01\x02", 4, 46), (b"PK\x05\x06", 4, 22))
            )
            start = data.find(signature)
            position = start + random.randrange(first, last)
            value = random.choice((0, 1, 8, 9, 12, 14, 99, 255)).to_bytes(1, "little")
            data[position : position + 1] = value
            if random.random() < 0.5 and signature == b"PK\x01\x02":  # the same in both
                data[position - start - 2 : position - start - 1] = value
            return bytes(data)
        name = random.choice(list(members))
        if kind == 2:
            other = random.choice(
                ("a.npy", "a", "../a.npy", "", "a/b.npy", "a\0.npy", "é.npy", "x" * 70, name + ".npy")
            )
            members = {(other if one == name else one): value for one, value in members.items()}
            if random.random() < 0.5:
                members["second.npy"] = content
        else:
            members[name] = mutator(random, members[name])
        packed = io.BytesIO()
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        with zipfile.ZipFile(packed, "w", random.choice(methods)) as archive:
            for one, value in members.items():
                archive.writestr(one, value)
        return packed.getvalue()

    return damage_zip


def damage_parquet(random: Random, content: bytes) -> bytes:
    """Damage the footer or the pages of a Parquet file, or write its table with other types and values."""
    kind = random.randrange(10)
    if kind == 0:
        return damage(random, content)
    length = int.from_bytes(content[-8:-4], "little")
    footer = max(0, len(content) - 8 - length)
    if kind <= 4:
        damaged = (
            damage(random, content[footer:-8]) if random.random() < 0.3 else _bits(random, content[footer:-8])
        )
        return content[:footer] + damaged + struct.pack("<I", len(damaged)) + b"PAR1"
    if kind <= 6:
        return _bits(random, content[:footer]) + content[footer:]
    written = io.BytesIO()
    metadata = pl.read_parquet_metadata(io.BytesIO(content))
    change_table(random, pl.read_parquet(content)).write_parquet(
        written,
        metadata={name: text for name, text in metadata.items() if name != "ARROW:schema"},
        compression=random.choice(("zstd", "snappy", "gzip", "uncompressed", "lz4")),
        row_group_size=random.choice((None, 1, 7)),
        statistics=random.random() < 0.5,
    )
    return written.getvalue()


def _bits(random: Random, content: bytes) -> bytes:
    """Change a few bytes, and keep the length."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        if data:
            position = random.randrange(len(data))
            data[position] = random.choice((data[position] ^ (1 << random.randrange(8)), 0, 255, 127, 128, 1))
    return bytes(data)


TYPES = (
    pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt32, pl.UInt64, pl.Int128, pl.Float32,
    pl.Float64, pl.String, pl.Binary, pl.Boolean, pl.Date, pl.Time, pl.Datetime("ms"),
    pl.Datetime("us", "UTC"), pl.Datetime("ns"), pl.Datetime("us", "Asia/Kolkata"),
    pl.Datetime("us", "+05:30"), pl.Duration("us"), pl.Categorical, pl.Null, pl.Decimal(20, 2),
    pl.Decimal(38, 0), pl.List(pl.Int64), pl.List(pl.String),
)  # fmt: skip
VALUES = (
    None, 0, -1, 1, 2**24 + 1, 2**53 + 1, 2**63 - 1, -(2**63), float("nan"), float("inf"), -0.0, 1e308, "",
    " ", "a", "1", "01", "1.0", "nan", "\0", "x" * 3000,
)  # fmt: skip


def change_table(random: Random, frame: pl.DataFrame) -> pl.DataFrame:
    """Give a column another type or value, or other columns or rows."""
    name = random.choice(frame.columns)
    value = random.choice(VALUES)
    values = frame[name].to_list()
    if values:
        values[random.randrange(len(values))] = value
    other = random.choice([*frame.columns, "other", "", "user_id ", "score", "rank", "timestamp"])
    far = random.choice((timedelta(days=10**6), timedelta(days=-(10**6)), timedelta(microseconds=1)))
    changes: list[Callable[[], pl.DataFrame]] = [
        lambda: frame.with_columns(frame[name].cast(random.choice(TYPES), strict=False)),
        lambda: frame.with_columns(frame[name].cast(random.choice(TYPES), strict=False)),
        lambda: frame.with_columns(pl.Series(name, values, frame[name].dtype, strict=False)),
        lambda: frame.drop(name) if other in frame.columns else frame.rename({name: other}),
        lambda: frame.with_columns(pl.lit(value).alias(other)),
        lambda: frame.head(random.choice((0, 1, len(frame) // 2))),
        lambda: pl.concat([frame, frame.head(1)]),
        frame.reverse,
        lambda: frame.with_columns(frame[name].cast(pl.Datetime("us")) + far),
        lambda: frame.with_columns(pl.struct(name).alias(name)),
    ]
    return random.choice(changes)()


LEAVES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**9, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "a", "1", "x" * 3000, "\0", "\ud800", [], [[]], {}, [1, 2], {"a": 1}, "metatl", "2013-04-05",
)  # fmt: skip


JSON_TEXTS = (
    b"[" * 100_000, b'{"a":' * 50_000, b"", b"null", b"[]", b"{}", b"1", b'"a"', b"9" * 5000, b"[1]",
)  # fmt: skip


def damage_json(random: Random, content: bytes) -> bytes:
    """Change values, names and the nesting of JSON, or its text."""
    kind = random.randrange(10)
    if kind <= 1:
        return damage_text(random, content)
    if kind == 2:
        utf_16 = content.decode("utf-8", errors="replace").encode("utf-16")
        return random.choice((*JSON_TEXTS, b"\xef\xbb\xbf" + content, content + content, utf_16))
    changed = change_json(random, json.loads(content))
    return json.dumps(changed, sort_keys=random.random() < 0.9).encode("utf-8", "surrogatepass")


def change_json(random: Random, value: Any) -> Any:
    """Change one value in a nested one."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(list(value))
        match random.randrange(8):
            case 0:
                return {one: part for one, part in value.items() if one != name}
            case 1:
                return {
                    **value,
                    random.choice(("extra", "", name + " ", name.upper())): random.choice(LEAVES),
                }
            case _:
                return {**value, name: change_json(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.7:
        index = random.randrange(len(value))
        return [change_json(random, part) if one == index else part for one, part in enumerate(value)]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.4:
        return random.choice((value + 1, -value, value * 10**9, float(value), str(value)))
    return random.choice(LEAVES)


def damage_safetensors(random: Random, content: bytes) -> bytes:
    """Damage the header of a safetensors file, or the record of metatl in it."""
    if random.random() < 0.2:
        return damage(random, content)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    record = header["__metadata__"]["record"]
    match random.randrange(5):
        case 0 | 1:
            changed = damage_json(random, record.encode()).decode("utf-8", errors="replace")
            header["__metadata__"]["record"] = changed
        case 2:
            header["__metadata__"] = {
                name: text for name, text in header["__metadata__"].items() if random.random() < 0.8
            }
        case 3:
            header = change_json(random, header)
        case _:
            text = damage_json(random, content[8 : 8 + length])
            return len(text).to_bytes(8, "little") + text + content[8 + length :]
    text = json.dumps(header).encode("utf-8", errors="surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def mutate(random: Random, content: bytes, mutator: Mutator) -> bytes:
    """Apply a mutator once, or a few times; now and then drop or repeat a part of the file."""
    for _ in range(random.choice((1, 1, 1, 1, 2, 3))):
        content = _mutate_once(random, content, mutator)
    if random.random() < 0.02:
        cut = random.randrange(len(content) + 1)
        content = content[:cut] + content[random.randrange(len(content) + 1) :]
    return content


def _mutate_once(random: Random, content: bytes, mutator: Mutator) -> bytes:
    try:
        return mutator(random, content)
    except (Exception, pl.exceptions.PanicException):  # noqa: BLE001 (it cannot parse what the last one left)
        return damage(random, content)
