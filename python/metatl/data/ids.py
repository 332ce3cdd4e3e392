"""The rule of ids: what is the same id, whatever the source and the type that it comes in.

- White space around an id does not belong to it. An id of white space alone is missing.
- A column whose ids are all integers, however they are written (1000, "1000", 1000.0, a decimal 1000.00,
  "1e+05"), has ids of type Int64.
- A column with a spelling that an integer cannot have, such as a leading zero or a letter, is text, and each
  of its ids is kept as it is written. So is a column with an integer of more than 64 bits.
- A float that may have been rounded is refused: from 2^11 on in Float16, 2^24 in Float32, 2^53 in Float64.
- Names of missing values ("NA", "nan", "NULL", ...) in a column that otherwise holds numbers are refused,
  unless the caller says which texts stand for a missing value.

Ids of one source are looked up in those of another by their text, then by the integer that the text spells.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metatl.common.forks import refuse_forked_child
from metatl.common.row_faults import RowFaults
from metatl.exceptions import ArgumentTypeError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from polars.datatypes import DataType

BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""White space as :meth:`str.strip` removes it, and the byte order mark."""

NAMES_OF_MISSING = (
    *("na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
    *(
        "null",
        "(null)",
        "#null!",
        "none",
        "nil",
        "nat",
        r"\n",
        "inf",
        "+inf",
        "-inf",
        "infinity",
        "+infinity",
    ),
    *("-infinity", "undefined", "missing", "?", "-", "--"),
)
"""Names of missing values, in lower case, as programs write them."""

EXPECTED_ID = "expected an id"
_NAMED_MISSING = (
    "found {} among numbers, expected an id; leave such rows out with null values (--null-values NA), or "
    "keep them as text with --null-values ''"
)
_ROUNDED = "found {} of type DTYPE, in which ids from LIMIT on are rounded; store ids as integers or text"
_ROUNDED_TEXT = (
    "found {}, a float from 2^53 on, which was rounded when it was written; store ids as integers or text"
)

_INTEGER = r"^(?:0|-?[1-9][0-9]*)(?:\.0*)?$|^-0\.0*$"
# Formatters of numbers write a sign after the e; nobody's id has one.
_EXPONENT = r"^-?[1-9](?:\.[0-9]+)?[eE]\+[0-9]{1,2}$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"

_ONE_INTEGER, _ONE_EXPONENT = (re.compile(pattern.replace("$", "")) for pattern in (_INTEGER, _EXPONENT))

# Bits of the significand: from 2^bits on, not every integer is a float.
_SIGNIFICANDS = {pl.Float16: 11, pl.Float32: 24, pl.Float64: 53}


def significand_bits(dtype: DataType) -> int:
    """Return p such that a float type holds every integer up to 2^p."""
    return _SIGNIFICANDS[dtype.base_type()]


def to_ids(values: pl.Series, faults: RowFaults, *, null_values: Sequence[str] | None = None) -> pl.Series:
    """Convert a column of ids by the rule of this module.

    Parameters
    ----------
    values : polars.Series
        (N,) of any scalar type.
    faults : RowFaults
        Gains the rows without a usable id.
    null_values : sequence of str, optional
        Texts that stand for a missing value, exactly. By default the names of missing values are refused in
        a column of numbers, and are ids in other columns.

    Returns
    -------
    polars.Series
        (N,) Int64 or String; null where there is no usable id.

    Raises
    ------
    DataError
        If the column is not of a scalar type, or its floats may have been rounded.
    """
    dtype = values.dtype
    _refuse_type(values)
    if dtype.is_integer():
        integers: pl.Series = values.cast(pl.Int64, strict=False)
        if integers.null_count() == 0:
            return integers
        missing = _named(values, values.cast(pl.String), null_values)
        faults.add(values.is_null() & ~missing, values, f"found nothing, {EXPECTED_ID}")
        is_large = integers.null_count() > values.null_count()
        large: pl.Series = values.cast(pl.String)
        return large if is_large else integers
    if dtype.is_float():
        return _from_floats(values, faults, null_values)
    text = _decode(values) if dtype == pl.Binary else values.cast(pl.String)
    return _from_text(values, text.str.strip_chars(BLANKS), faults, null_values)


def _refuse_type(column: pl.Series) -> None:
    if column.dtype.is_nested() or column.dtype.is_temporal() or column.dtype == pl.Object:
        raise DataError(f"found values of type {column.dtype}, expected integers or text", column=column.name)


def _named(values: pl.Series, text: pl.Series, null_values: Sequence[str] | None) -> pl.Series:
    """Tell where a value is one of the texts that stand for a missing one; "" stands for null too."""
    if null_values is None:
        nowhere: pl.Series = pl.Series(values.name, [False], dtype=pl.Boolean).new_from_index(0, len(values))
        return nowhere
    texts = pl.Series([name.strip(BLANKS) for name in null_values], dtype=pl.String)
    named: pl.Series = text.is_in(texts.implode()).fill_null(value="" in null_values)
    return named


def _from_floats(values: pl.Series, faults: RowFaults, null_values: Sequence[str] | None) -> pl.Series:
    missing = _named(values, values.cast(pl.String), null_values)
    if null_values is not None and "nan" in map(str.lower, null_values):
        missing = missing | values.is_nan().fill_null(value=False)
    faults.add(values.is_null() & ~missing, values, f"found nothing, {EXPECTED_ID}")
    faults.add(values.is_nan().fill_null(value=False) & ~missing, values, f"found NaN, {EXPECTED_ID}")
    faults.add(values.is_infinite().fill_null(value=False) & ~missing, values, f"found {{}}, {EXPECTED_ID}")
    usable = values.set(~values.is_finite().fill_null(value=False), None)
    bits = significand_bits(values.dtype)
    is_whole = (usable.floor() == usable).fill_null(value=True)
    rounded = (usable.abs() >= 2**bits) & is_whole
    if rounded.any():
        message = _ROUNDED.replace("DTYPE", str(values.dtype)).replace("LIMIT", f"2^{bits}")
        refuse_first(rounded, values, message)
    ids: pl.Series = usable.cast(pl.Int64 if is_whole.all() else pl.String)
    return ids


def _from_text(
    values: pl.Series, text: pl.Series, faults: RowFaults, null_values: Sequence[str] | None
) -> pl.Series:
    missing = _named(values, text, null_values)
    is_empty = text.is_null() | (text == "").fill_null(value=True)
    faults.add(is_empty & ~missing, values, f"found nothing, {EXPECTED_ID}")
    text = text.set(is_empty | missing, None)
    integers: pl.Series = text.cast(pl.Int64, strict=False)
    if integers.null_count() == text.null_count() and (integers.cast(pl.String) == text).all():
        return integers
    if null_values is None:
        is_name = text.str.to_lowercase().is_in(NAMES_OF_MISSING).fill_null(value=False)
        others = text.filter(~is_name).drop_nulls()
        if is_name.any() and len(others) and others.str.contains(_NUMBER).all():
            faults.add(is_name, values, _NAMED_MISSING)
            text = text.set(is_name, None)
    digits = integer_digits(text)
    if digits.null_count() > text.null_count():
        return text
    # A program that turned integers into floats writes them with a point.
    is_float = (digits != text).fill_null(value=False)
    rounded = is_float & (digits.cast(pl.Float64, strict=False).abs() >= 2**53).fill_null(value=False)
    if rounded.any() and not values.dtype.is_decimal():
        refuse_first(rounded, values, _ROUNDED_TEXT)
    integers = digits.cast(pl.Int64, strict=False)
    return integers if integers.null_count() == digits.null_count() else digits


def integer_digits(text: pl.Series) -> pl.Series:
    """Write the integers that texts spell in the usual way; null where a text spells none.

    Parameters
    ----------
    text : polars.Series
        String (N,), without white space around it.

    Returns
    -------
    polars.Series
        String (N,): digits, with a minus sign before a negative integer.

    Examples
    --------
    >>> integer_digits(pl.Series(["1000.0", "7", "1e+05", "007", "12a"])).to_list()
    ['1000', '7', '100000', None, None]
    """
    spelt_integers = text.set(~text.str.contains(_INTEGER).fill_null(value=False), None)
    digits: pl.Series = spelt_integers.str.replace(r"\.0*$", "").replace("-0", "0")
    has_exponent = text.str.contains(_EXPONENT).fill_null(value=False)
    if has_exponent.any():
        spelt = [Decimal(value) for value in text.filter(has_exponent).to_list()]
        written = [str(int(value)) if value == int(value) else None for value in spelt]
        rows = np.flatnonzero(has_exponent.to_numpy())
        digits = digits.scatter(rows, written)
    return digits


def spelt_integer(text: str) -> int | None:
    """Return the integer that one text spells, as :func:`integer_digits` does for a column.

    Parameters
    ----------
    text : str
        Without white space around it.

    Returns
    -------
    int or None
        None if it spells none.
    """
    if _ONE_INTEGER.fullmatch(text):
        return int(text.partition(".")[0])
    if _ONE_EXPONENT.fullmatch(text):
        value = Decimal(text)
        return int(value) if value == int(value) else None
    return None


def refuse_first(bad: pl.Series, column: pl.Series, message: str, lines: pl.Series | None = None) -> None:
    """Raise DataError for the first row where `bad` is true, with its line if lines are given."""
    faults = RowFaults(lines)
    faults.add(bad, column, message)
    if len(faults):
        raise faults.first()[0]


def normalise(ids: pl.Series) -> pl.Series:
    """Convert a column in which every row must have an id.

    Parameters
    ----------
    ids : polars.Series
        (N,) of any scalar type.

    Returns
    -------
    polars.Series
        (N,) Int64 or String.

    Raises
    ------
    DataError
        If an id is missing, or the column cannot be used; with the rows and the column.
    """
    faults = RowFaults()
    normalised = to_ids(ids, faults)
    if len(faults):
        raise faults.error()
    return normalised


def number_ids(
    column: pl.Series, faults: RowFaults, *, null_values: Sequence[str] | None = None
) -> tuple[pl.Series, NDArray[np.int64]]:
    """Give each distinct id of a column a number.

    Parameters
    ----------
    column : polars.Series
        (N,) raw ids of any scalar type.
    faults : RowFaults
        Gains the rows without a usable id.
    null_values : sequence of str, optional
        See :func:`to_ids`.

    Returns
    -------
    ids : polars.Series
        The sorted distinct ids: Int64 or String.
    numbers : ndarray
        int64 (N,): the index of the id of each row in `ids`; -1 in a row without one, which is at fault or
        has one of `null_values`.

    Raises
    ------
    DataError
        See :func:`to_ids`.
    """
    if column.dtype.is_integer() or column.dtype.is_float():
        ids = to_ids(column, faults, null_values=null_values)
        distinct = ids.drop_nulls().unique().sort()
        return distinct, _indices(ids, distinct)
    _refuse_type(column)
    if column.dtype == pl.Null:
        column = column.cast(pl.String)
    # Long texts are converted once for each distinct value, not for each row.
    values = column.unique()
    table = pl.DataFrame({"id": values, "index": np.arange(len(values), dtype=np.int64)})
    rows = column.to_frame("id").join(table, on="id", how="left", nulls_equal=True, maintain_order="left")
    indices = rows["index"].to_numpy()
    of_values = RowFaults()
    try:
        ids = to_ids(values, of_values, null_values=null_values)
    except DataError as refused:
        if refused.row is not None:
            refuse_first(pl.Series(indices == refused.row - 1), column, refused.message, faults.lines)
        raise
    for fault in of_values.errors:
        faults.add(pl.Series(indices == (fault.row or 1) - 1), column, fault.message)
    usable = of_values.usable()
    if usable is not None:
        # The descriptions of the first values, then the rows of the others.
        faults.add(pl.Series(~usable[indices]), column, f"found {{}}, {EXPECTED_ID}")
    distinct = ids.drop_nulls().unique().sort()
    return distinct, _indices(ids, distinct)[indices]


def _indices(ids: pl.Series, distinct: pl.Series) -> NDArray[np.int64]:
    numbers = pl.Series(np.arange(len(distinct)))
    indices: NDArray[np.int64] = ids.replace_strict(
        distinct, numbers, default=-1, return_dtype=pl.Int64
    ).to_numpy()
    return indices


def find_ids(ids: pl.Series, wanted: pl.Series | Sequence[Any]) -> NDArray[np.int64]:
    """Look up raw ids of any source among the ids of another.

    An id is found by its text, and otherwise by the integer that its text spells. So "1000.0" finds 1000, and
    1000 finds "1000".

    Parameters
    ----------
    ids : polars.Series
        (I,) distinct, Int64 or String.
    wanted : polars.Series or sequence
        (N,) raw ids of any scalar type; null is never found.

    Returns
    -------
    ndarray
        int64 (N,): indices in `ids`; -1 for an unknown id.

    Raises
    ------
    DataError
        If `wanted` is a column of floats that may have been rounded, or is not of a scalar type.
    ArgumentTypeError
        If a value of a sequence cannot be an id.
    """
    refuse_forked_child()
    if not isinstance(wanted, pl.Series):
        wanted = pl.Series([id_text(value) for value in wanted], dtype=pl.String)
    if wanted.dtype.is_integer() and ids.dtype == pl.Int64:
        return _joined(ids, wanted.cast(pl.Int64, strict=False))
    text = _texts(wanted)
    found = _joined(ids.cast(pl.String), text)
    unknown = pl.Series(found < 0)
    if unknown.any():
        spelt = text.set(~unknown, None)
        by_integer = _joined(ids.cast(pl.String), integer_digits(spelt))
        found = np.where(found < 0, by_integer, found)
    return found


def _texts(wanted: pl.Series) -> pl.Series:
    """Write ids as stripped text; null where there is none."""
    if wanted.dtype.is_float():
        floats: pl.Series = to_ids(wanted, RowFaults()).cast(pl.String)
        return floats
    _refuse_type(wanted)
    text = _decode(wanted) if wanted.dtype == pl.Binary else wanted.cast(pl.String)
    return text.str.strip_chars(BLANKS)


def _joined(ids: pl.Series, wanted: pl.Series) -> NDArray[np.int64]:
    table = pl.DataFrame({"id": ids, "index": np.arange(len(ids), dtype=np.int64)})
    joined = wanted.to_frame("id").join(table, on="id", how="left", maintain_order="left")
    return joined["index"].fill_null(-1).to_numpy()


def id_text(value: Any) -> str:
    """Write one id as text: "17" for 17, 17.0, " 17 " and a tensor that holds 17.

    Parameters
    ----------
    value : object
        Text, a number, or an array or tensor of one value.

    Returns
    -------
    str
        The text, without white space around it.

    Raises
    ------
    ArgumentTypeError
        If the value is a container, or a float that may have been rounded. None and NaN are texts that no
        catalogue has.
    """
    bits = {2: 11, 4: 24}.get(getattr(getattr(value, "dtype", None), "itemsize", 8), 53)
    try:
        value = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        raise ArgumentTypeError(f"found an array as an item id, {EXPECTED_ID}") from None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if abs(value) >= 2**bits:
            found = f"{value!r} as an item id: floats from 2^{bits} on are rounded"
            raise ArgumentTypeError(f"found {found}, expected an integer or text")
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, (list, tuple, dict, set)):
        raise ArgumentTypeError(f"found {type(value).__name__} as an item id, expected an integer or text")
    return str(value).strip(BLANKS)


def _decode(column: pl.Series) -> pl.Series:
    """Decode bytes, as in Parquet files whose writer does not mark its text as text."""
    texts = []
    for row, value in enumerate(column.to_list(), start=1):
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:  # noqa: PERF203 (the error must know its row)
            raise DataError(f"found {value!r}, expected UTF-8", row=row, column=column.name) from None
    return pl.Series(column.name, texts, dtype=pl.String)
