"""Conversion of timestamps to int64 microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import warnings
from datetime import date, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING, Literal, get_args

import polars as pl

from metatl.common.arguments import check_choice
from metatl.common.row_faults import RowFaults
from metatl.data.ids import BLANKS, refuse_first, significand_bits
from metatl.exceptions import DataError, MetatlWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

TimestampUnit = Literal["s", "ms", "us", "ns", "YYYYMMDD"]
"""The unit of numbers since 1970, or their format: a date as one number, also with a time: YYYYMMDDhhmmss."""


def split_unit(column: str) -> tuple[str, TimestampUnit | None]:
    """Split the name of a timestamp column as commands take it, with the unit of its numbers: ``day:ms``.

    Parameters
    ----------
    column : str
        A name, with or without a unit. A name may contain a colon itself: names of RecBole end in a type.

    Returns
    -------
    name : str
        The name without the unit.
    unit : {"s", "ms", "us", "ns", "YYYYMMDD"} or None
        None where there is no unit.
    """
    name, _, ending = column.rpartition(":")
    for unit in get_args(TimestampUnit):
        if name and ending == unit:
            return name, unit
    return column, None


# Microseconds in a unit, as a fraction.
_UNITS = {
    "s": ("seconds", 1_000_000, 1),
    "ms": ("milliseconds", 1_000, 1),
    "us": ("microseconds", 1, 1),
    "ns": ("nanoseconds", 1, 1_000),
    "YYYYMMDD": ("dates as YYYYMMDD, not numbers", 1, 1),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
# The range of a datetime. Milliseconds that are read as seconds are outside, so that the error is found.
_EARLIEST = (datetime.min.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND
_LATEST = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND
_OUTSIDE = (
    "found {}, outside the years 1 to 9999; set timestamp_unit, or --columns user,item,time:ms, to their "
    "unit: s, ms, us or ns"
)
_DATES_AS_NUMBERS = (
    "found {} and only such numbers: dates as YYYYMMDD, not seconds since 1970; set timestamp_unit to "
    "YYYYMMDD, or --columns user,item,time:YYYYMMDD; or to s if they are seconds"
)
_ROUNDED = "found {} of type TYPE, in which such times are rounded; store them as integers, Float64 or dates"

_DATE_NUMBER = r"^[0-9]{8}(?:[0-9]{6})?(?:\.0*)?$"

# 1 date, 2 hours and minutes, 3 seconds, 4 fraction of a second, 5 sign, 6 hours and 7 minutes of the offset.
_ISO_DATE = (
    r"^(\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?"
    r" ?(?:[Zz]|UTC|([+-])(\d{2}):?(\d{2})?)?)?$"
)
# As in "Fri Oct 13 10:19:32 -0700 2017": Goodreads, and the interface of Twitter.
_WEEKDAY_DATE = r"^[A-Z][a-z]{2} [A-Z][a-z]{2} \d{2} \d{2}:\d{2}:\d{2} [+-]\d{4} \d{4}$"
_WEEKDAY_FORMAT = "%a %b %d %H:%M:%S %z %Y"


def to_microseconds(
    column: pl.Series,
    unit: TimestampUnit | None = None,
    faults: RowFaults | None = None,
    *,
    null_values: Sequence[str] = (),
) -> pl.Series:
    """Convert a column of timestamps.

    Parameters
    ----------
    column : polars.Series
        Integers or floats in `unit`, dates, datetimes, or text: numbers, ISO 8601 dates with or without a
        time and an offset, or dates such as "Fri Oct 13 10:19:32 -0700 2017". Times without an offset are
        UTC. The first value decides which of these the text of a column is.
    unit : {"s", "ms", "us", "ns", "YYYYMMDD"}, optional
        Unit or format of numbers. By default seconds, and a column in which every number is a date as
        YYYYMMDD is refused. Fractions of a microsecond are rounded in numbers and cut in ISO dates.
    faults : RowFaults, optional
        Gains the rows that cannot be read, and the remarks. By default they raise a DataError, and warn.
    null_values : sequence of str
        Texts that stand for a missing value; their rows are null in the result and no fault.

    Returns
    -------
    polars.Series
        Int64: microseconds since 1970-01-01 UTC; null where a row cannot be read.

    Raises
    ------
    DataError
        For missing, unreadable or out-of-range values, with their rows and the column, if `faults` is None;
        if the column has no type of times; if every number is a date; if floats are rounded.
    InvalidArgumentError
        If `unit` is not one of the units.

    Warns
    -----
    MetatlWarning
        If all times that are numbers lie in 1970, or after the next year: they may be counters, or have
        another unit.

    Examples
    --------
    >>> to_microseconds(pl.Series(["2013-07-01", "2013-07-01T12:00:00+02:00"])).to_list()
    [1372636800000000, 1372672800000000]
    >>> to_microseconds(pl.Series([20130701]), "YYYYMMDD").to_list()
    [1372636800000000]
    """
    if unit is not None:
        check_choice("timestamp_unit", unit, get_args(TimestampUnit))
    if faults is None:
        faults = RowFaults()
        microseconds = to_microseconds(column, unit, faults, null_values=null_values)
        if len(faults):
            raise faults.error()
        for remark in faults.remarks:
            warnings.warn(remark, MetatlWarning, stacklevel=2)
        return microseconds
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    expected = f"expected {_UNITS[unit or 's'][0]} since 1970 as a number, or an ISO date"
    missing = column.is_null()
    if column.dtype == pl.String:
        column = column.str.strip_chars(BLANKS)
        texts = pl.Series([text.strip(BLANKS) for text in null_values], dtype=pl.String)
        missing = missing | column.is_in(texts.implode())
    if "" not in null_values:
        faults.add(column.is_null(), column, f"found nothing, {expected}")
    present = column.filter(~missing)
    of_present = _Present(faults, column, missing)
    microseconds = _convert(present, unit, expected, of_present)
    return of_present.spread(microseconds)


class _Present:
    """The rows that have a value, and where they are in the whole column."""

    def __init__(self, faults: RowFaults, column: pl.Series, missing: pl.Series) -> None:
        self.faults, self.column, self.missing = faults, column, missing
        self.is_whole = not missing.any()

    def add(self, bad: pl.Series, message: str) -> None:
        """Add rows among those that have a value."""
        if bad.null_count() or bad.any():
            self.faults.add(
                self.spread(bad.fill_null(value=True)).fill_null(value=False), self.column, message
            )

    def refuse(self, bad: pl.Series, message: str) -> None:
        """Refuse the column because of the first of the rows."""
        if bad.any():
            refuse_first(self.spread(bad).fill_null(value=False), self.column, message, self.faults.lines)

    def spread(self, values: pl.Series) -> pl.Series:
        """Put values of the present rows where they are in the column, with nulls between them."""
        if self.is_whole:
            return values
        rows = (~self.missing).arg_true()
        nulls = pl.Series(self.column.name, [None], dtype=values.dtype).new_from_index(0, len(self.column))
        spread: pl.Series = nulls.scatter(rows, values)
        return spread


def _convert(column: pl.Series, unit: TimestampUnit | None, expected: str, present: _Present) -> pl.Series:
    if column.dtype == pl.String:
        return _from_text(column, unit, expected, present)
    # By their integers: polars panics at dates that no calendar has.
    if column.dtype == pl.Date:
        return _multiplied(column.to_physical().cast(pl.Int64), 86_400_000_000, present)
    if isinstance(column.dtype, pl.Datetime):
        return _scaled(column.to_physical(), column.dtype.time_unit, present)
    if column.dtype.is_integer():
        integers = column.cast(pl.Int64, strict=False)
        present.add(integers.is_null(), _OUTSIDE)
        return _from_integers(integers, unit, present)
    if column.dtype.is_float() or column.dtype.is_decimal():
        return _from_floats(column, unit, present)
    if column.dtype == pl.Null:
        return pl.Series(column.name, [], dtype=pl.Int64)
    raise DataError(f"found values of type {column.dtype}, {expected}", column=column.name)


def to_datetime(microseconds: int) -> datetime:
    """Convert a timestamp to a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def from_date(day: date) -> int:
    """Convert a date (at midnight) or a datetime to a timestamp; it is in UTC if it has no time zone."""
    moment = day if isinstance(day, datetime) else datetime.combine(day, time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - _EPOCH) // _MICROSECOND


def _from_text(column: pl.Series, unit: TimestampUnit | None, expected: str, present: _Present) -> pl.Series:
    if unit == "YYYYMMDD":
        return _from_date_numbers(column, present)
    if column[:1].cast(pl.Float64, strict=False).null_count() > 0:
        is_weekday = column[:1].str.contains(_WEEKDAY_DATE).any()
        dates = _from_weekday_dates(column) if is_weekday else _from_iso_dates(column)
        present.add(dates.is_null(), f"found {{}}, {expected}")
        return _in_range(dates, present)
    integers = column.cast(pl.Int64, strict=False)
    if integers.null_count() == 0:
        return _from_integers(integers, unit, present)
    floats = column.cast(pl.Float64, strict=False)
    present.add(floats.is_null(), f"found {{}}, {expected}")
    _refuse_date_numbers(column, unit, present)
    # Large integers are exact as integers and not as floats.
    from_floats = _from_floats(floats.set(integers.is_not_null(), None), unit, present)
    from_integers = _from_integers(integers, unit, present)
    combined: pl.Series = from_integers.zip_with(integers.is_not_null(), from_floats)
    return combined


def _from_iso_dates(column: pl.Series) -> pl.Series:
    """Convert ISO dates to microseconds; null where a text is not an existing date."""
    parts = column.str.extract_groups(_ISO_DATE).alias("parts").to_frame()

    def part(group: int) -> pl.Expr:
        return pl.col("parts").struct.field(str(group))

    moment = pl.concat_str(
        part(1),
        part(2).fill_null("00:00"),
        part(3).fill_null("00"),
        part(4).fill_null("").str.pad_end(9, "0").str.slice(0, 6),
        separator=" ",
    ).str.to_datetime("%Y-%m-%d %H:%M %S %6f", time_unit="us", strict=False)
    minutes = part(6).cast(pl.Int64) * 60 + part(7).cast(pl.Int64).fill_null(0)
    ahead = pl.when(part(5) == "-").then(-minutes).otherwise(minutes).fill_null(0)
    return parts.select(moment.cast(pl.Int64) - ahead * 60_000_000).to_series().alias(column.name)


def _from_weekday_dates(column: pl.Series) -> pl.Series:
    """Convert dates that start with the day of the week to microseconds; null where the text is not one."""
    moments = column.str.to_datetime(_WEEKDAY_FORMAT, time_unit="us", strict=False)
    microseconds: pl.Series = moments.cast(pl.Int64)
    return microseconds


def _from_date_numbers(numbers: pl.Series, present: _Present) -> pl.Series:
    """Convert dates as YYYYMMDD or YYYYMMDDhhmmss."""
    dates = _parse_date_numbers(numbers.cast(pl.String))
    present.add(dates.is_null(), "found {}, expected a date as YYYYMMDD or YYYYMMDDhhmmss")
    return dates


def _parse_date_numbers(text: pl.Series) -> pl.Series:
    """Read dates as YYYYMMDD or YYYYMMDDhhmmss; null where a text is not an existing date."""
    digits = text.set(~text.str.contains(_DATE_NUMBER), None).str.replace(r"\.0*$", "")
    moments = digits.str.pad_end(14, "0").str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False)
    microseconds: pl.Series = moments.cast(pl.Int64)
    return microseconds.alias(text.name)


def _refuse_date_numbers(numbers: pl.Series, unit: TimestampUnit | None, present: _Present) -> None:
    """Refuse a column without a unit in which every number is a date of 1900 to 2100."""
    if unit is not None or numbers.is_empty():
        return
    # The first value settles almost every column.
    first = _parse_date_numbers(numbers[:1].cast(pl.String))
    if first.null_count():
        return
    dates = _parse_date_numbers(numbers.drop_nulls().cast(pl.String))
    years = dates.cast(pl.Datetime("us")).dt.year()
    if dates.null_count() == 0 and years.is_between(1900, 2100).all():
        present.refuse(numbers.is_not_null(), _DATES_AS_NUMBERS)


def _from_integers(integers: pl.Series, unit: TimestampUnit | None, present: _Present) -> pl.Series:
    if unit == "YYYYMMDD":
        return _from_date_numbers(integers, present)
    _refuse_date_numbers(integers, unit, present)
    return _told(_scaled(integers, unit or "s", present), unit, present)


def _scaled(integers: pl.Series, unit: str, present: _Present) -> pl.Series:
    """Convert integers of a unit to microseconds."""
    _, multiplier, divisor = _UNITS[unit]
    if divisor > 1:
        rounded_up = (integers % divisor >= divisor // 2).cast(pl.Int64)
        return _in_range(integers // divisor + rounded_up, present)
    return _multiplied(integers, multiplier, present)


def _multiplied(integers: pl.Series, multiplier: int, present: _Present) -> pl.Series:
    """Multiply integers, and leave out those that are outside the range of times."""
    outside = ((integers < -(-_EARLIEST // multiplier)) | (integers > _LATEST // multiplier)).fill_null(
        value=False
    )
    present.add(outside, _OUTSIDE)
    microseconds: pl.Series = integers.set(outside, None) * multiplier
    return microseconds.alias(present.column.name)


def _from_floats(column: pl.Series, unit: TimestampUnit | None, present: _Present) -> pl.Series:
    if unit == "YYYYMMDD":
        return _from_date_numbers(column.cast(pl.Int64, strict=False), present)
    whole = column.cast(pl.Float64)
    if (whole.floor() == whole).all():
        _refuse_date_numbers(whole.cast(pl.Int64, strict=False), unit, present)
    _, multiplier, divisor = _UNITS[unit or "s"]
    present.add(~whole.is_finite().fill_null(value=True), "found {}, expected a finite number")
    whole = whole.set(~whole.is_finite().fill_null(value=False), None)
    rounded = (whole * multiplier / divisor).round()
    outside = ((rounded < _EARLIEST) | (rounded > _LATEST)).fill_null(value=False)
    present.add(outside, _OUTSIDE)
    # A Float64 is rounded to less than a microsecond up to the year 2255.
    is_short = column.dtype in (pl.Float16, pl.Float32)
    inexact = whole.abs() >= 2 ** significand_bits(column.dtype) if is_short else rounded.abs() > 2**53
    message = _ROUNDED.replace("TYPE", str(column.dtype))
    present.refuse(inexact.fill_null(value=False) & ~outside, message)
    microseconds: pl.Series = rounded.set(outside, None).cast(pl.Int64)
    return _told(microseconds.alias(column.name), unit, present)


def _in_range(microseconds: pl.Series, present: _Present) -> pl.Series:
    outside = ((microseconds < _EARLIEST) | (microseconds > _LATEST)).fill_null(value=False)
    present.add(outside, _OUTSIDE)
    return microseconds.set(outside, None).alias(present.column.name)


def _told(microseconds: pl.Series, unit: TimestampUnit | None, present: _Present) -> pl.Series:
    """Say how numbers were read where they may be counters, or may have another unit."""
    if microseconds.null_count() == len(microseconds):
        return microseconds
    first, last = to_datetime(int(microseconds.min())), to_datetime(int(microseconds.max()))  # type: ignore[arg-type]
    next_year = datetime.now(tz=timezone.utc).year + 1
    if (first.year == last.year == _EPOCH.year) or first.year > next_year:
        present.faults.remarks.append(
            f"column {present.column.name!r}: its numbers were read as {_UNITS[unit or 's'][0]} since 1970: "
            f"{first:%Y-%m-%d} to {last:%Y-%m-%d}; set timestamp_unit (--columns user,item,time:ms) if they "
            "have another unit"
        )
    return microseconds
