"""Conversion of timestamps to int64 microseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from typing import Literal, get_args

import polars as pl

from metatl.common.column_errors import refuse, refuse_missing
from metatl.exceptions import DataError, InvalidArgumentError

TimestampUnit = Literal["s", "ms", "us", "ns"]


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
    unit : {"s", "ms", "us", "ns"} or None
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

# 1 date, 2 hours and minutes, 3 seconds, 4 fraction of a second, 5 sign, 6 hours and 7 minutes of the offset.
_ISO_DATE = (
    r"^(\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?"
    r" ?(?:[Zz]|UTC|([+-])(\d{2}):?(\d{2})?)?)?$"
)
# As in "Fri Oct 13 10:19:32 -0700 2017": Goodreads, and the interface of Twitter.
_WEEKDAY_DATE = r"^[A-Z][a-z]{2} [A-Z][a-z]{2} \d{2} \d{2}:\d{2}:\d{2} [+-]\d{4} \d{4}$"
_WEEKDAY_FORMAT = "%a %b %d %H:%M:%S %z %Y"


def to_microseconds(column: pl.Series, unit: TimestampUnit = "s") -> pl.Series:
    """Convert a column of timestamps.

    Parameters
    ----------
    column : polars.Series
        Integers or floats in `unit`, dates, datetimes, or text: numbers, ISO 8601 dates with or without a
        time and an offset, or dates such as "Fri Oct 13 10:19:32 -0700 2017". Times without an offset are
        UTC. The first value decides which of these the text of a column is.
    unit : {"s", "ms", "us", "ns"}
        Unit of numbers. Fractions of a microsecond are rounded in numbers and cut in ISO dates.

    Returns
    -------
    polars.Series
        Int64: microseconds since 1970-01-01 UTC.

    Raises
    ------
    DataError
        For the first missing, unreadable or out-of-range value, with its row and column.
    InvalidArgumentError
        If `unit` is not one of the units.

    Examples
    --------
    >>> to_microseconds(pl.Series(["2013-07-01", "2013-07-01T12:00:00+02:00"])).to_list()
    [1372636800000000, 1372672800000000]
    """
    if unit not in _UNITS:
        raise InvalidArgumentError(f"timestamp_unit: found {unit!r}, expected one of {', '.join(_UNITS)}")
    expected = f"expected {_UNITS[unit][0]} since 1970 as a number, or an ISO date"
    refuse_missing(column, expected)
    if column.dtype == pl.String:
        return _from_text(column.str.strip_chars(), unit, expected)
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        return _in_range(column.dt.cast_time_unit("us").cast(pl.Int64), column)
    if column.dtype.is_integer():
        return _from_integers(column.cast(pl.Int64, strict=False), column, unit)
    if column.dtype.is_float() or column.dtype.is_decimal():
        return _from_floats(column.cast(pl.Float64), column, unit)
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


def _from_text(column: pl.Series, unit: TimestampUnit, expected: str) -> pl.Series:
    if column[:1].cast(pl.Float64, strict=False).null_count() > 0:
        is_weekday = column[:1].str.contains(_WEEKDAY_DATE).any()
        dates = _from_weekday_dates(column) if is_weekday else _from_iso_dates(column)
        refuse(dates.is_null(), column, f"found {{}}, {expected}")
        return _in_range(dates, column)
    integers = column.cast(pl.Int64, strict=False)
    if integers.null_count() == 0:
        return _from_integers(integers, column, unit)
    floats = column.cast(pl.Float64, strict=False)
    refuse(floats.is_null(), column, f"found {{}}, {expected}")
    # Large integers are exact as integers and not as floats.
    from_floats = _from_floats(floats, column, unit)
    from_integers = _from_integers(integers.fill_null(0), column, unit)
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


def _from_integers(integers: pl.Series, column: pl.Series, unit: TimestampUnit) -> pl.Series:
    _, multiplier, divisor = _UNITS[unit]
    if divisor > 1:
        rounded_up = (integers % divisor >= divisor // 2).cast(pl.Int64)
        return _in_range(integers // divisor + rounded_up, column)
    outside = (integers < _EARLIEST // multiplier) | (integers > _LATEST // multiplier)
    refuse(outside, column, _OUTSIDE)
    return (integers * multiplier).alias(column.name)


def _from_floats(floats: pl.Series, column: pl.Series, unit: TimestampUnit) -> pl.Series:
    _, multiplier, divisor = _UNITS[unit]
    refuse(~floats.is_finite(), column, "found {}, expected a finite number")
    rounded = (floats * multiplier / divisor).round()
    refuse((rounded < _EARLIEST) | (rounded > _LATEST), column, _OUTSIDE)
    microseconds: pl.Series = rounded.cast(pl.Int64)
    return microseconds.alias(column.name)


def _in_range(microseconds: pl.Series, column: pl.Series) -> pl.Series:
    refuse((microseconds < _EARLIEST) | (microseconds > _LATEST), column, _OUTSIDE)
    return microseconds.alias(column.name)
