"""Timestamps against Python's own datetimes and fractions."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.timestamps import from_date, to_datetime, to_microseconds
from metatl.exceptions import DataError, InvalidArgumentError, MetatlWarning
from property_settings import COSTLY_CASES

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

moments = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31))  # noqa: DTZ001 (UTC)


def column(values, dtype=None):
    return pl.Series("time", values, dtype=dtype)


def microseconds(moment):
    """The oracle: whole microseconds since 1970 of a datetime, UTC where it does not say otherwise."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return (aware - EPOCH) // MICROSECOND


@COSTLY_CASES
@given(st.lists(moments, min_size=10, max_size=30), st.sampled_from(["T", " "]), st.integers(-720, 720))
def test_iso_dates_with_offsets(values, between, minutes):
    zone = timezone(timedelta(minutes=minutes))
    texts = [value.replace(tzinfo=zone).isoformat(between) for value in values]
    expected = [microseconds(value.replace(tzinfo=zone)) for value in values]
    assert to_microseconds(column(texts)).to_list() == expected


@COSTLY_CASES
@given(st.lists(moments, min_size=10, max_size=30))
def test_datetimes_dates_and_their_text_agree(values):
    expected = [microseconds(value) for value in values]
    assert to_microseconds(column(values)).to_list() == expected
    assert to_microseconds(column([value.isoformat() for value in values])).to_list() == expected
    days = [value.date() for value in values]
    expected = [from_date(day) for day in days]
    assert to_microseconds(column(days)).to_list() == expected
    assert to_microseconds(column([day.isoformat() for day in days])).to_list() == expected


@COSTLY_CASES
@given(st.data(), st.sampled_from(["s", "ms", "us", "ns"]))
def test_integers_are_exact_in_every_unit(data, unit):
    bound = min(2**63 - 1, 62_135_596_800 * PER_SECOND[unit])
    numbers = data.draw(st.lists(st.integers(-bound, bound), min_size=10, max_size=30))
    expected = [(number * 1_000_000 * 2 // PER_SECOND[unit] + 1) // 2 for number in numbers]
    assert to_microseconds(column(numbers, pl.Int64), unit).to_list() == expected
    assert to_microseconds(column([str(number) for number in numbers]), unit).to_list() == expected


def test_floats_are_rounded_to_microseconds():
    assert to_microseconds(column([1.5, -0.25, 1e9])).to_list() == [1_500_000, -250_000, 10**15]
    assert to_microseconds(column(["1.5", " 2 ", "1e9"])).to_list() == [1_500_000, 2_000_000, 10**15]


def test_integers_among_floats_in_text_stay_exact():
    large = 9_007_199_254_740_993  # 2^53 + 1, which a float cannot hold.
    assert to_microseconds(column([str(large), "0.5"]), "us").to_list() == [large, 0]


def test_time_zones_of_datetimes_are_heeded():
    values = column([datetime(2020, 1, 1, tzinfo=timezone.utc)]).dt.convert_time_zone("Asia/Tokyo")
    assert to_microseconds(values).to_list() == [microseconds(datetime(2020, 1, 1, tzinfo=timezone.utc))]


def test_dates_and_back():
    assert to_datetime(from_date(date(2013, 7, 1))) == datetime(2013, 7, 1, tzinfo=timezone.utc)
    moment = datetime(2013, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert to_datetime(from_date(moment)) == moment
    assert from_date(datetime(2013, 7, 1, 12)) == microseconds(datetime(2013, 7, 1, 12))  # noqa: DTZ001 (UTC)


@pytest.mark.parametrize(
    ("values", "row", "found"),
    [
        (["1", "abc"], 2, "'abc'"),
        (["yesterday"], 1, "'yesterday'"),
        (["2013-01-01", "2013-02-30"], 2, "'2013-02-30'"),
        (["2013-01-01", "20130102"], 2, "'20130102'"),
        (["2013-01-01", "2013-01-02 25:00"], 2, "'2013-01-02 25:00'"),
        (["1", "2013-01-02"], 2, "'2013-01-02'"),
        (["1", ""], 2, "''"),
        (["1", None], 2, "nothing"),
        ([1, None], 2, "nothing"),
        ([1.0, float("nan")], 2, "NaN"),
        ([1.0, float("inf")], 2, "inf"),
        (["1", "nan"], 2, "'nan'"),
        ([1_390_694_400_000], 1, "1390694400000, outside the years 1 to 9999"),
        (["1390694400", "1390694400000"], 2, "'1390694400000', outside"),
        ([-62_135_596_801], 1, "-62135596801, outside"),
        ([1e300], 1, "outside"),
        (["9" * 30], 1, "outside"),
        (["9999-12-31T23:59:59-01:00"], 1, "outside"),
    ],
)
def test_what_is_no_timestamp_is_shown_with_its_row(values, row, found):
    with pytest.raises(DataError) as caught:
        to_microseconds(column(values))
    error = caught.value
    assert (error.row, error.column) == (row, "time")
    assert found.lower() in str(error).lower()
    assert "expected" in str(error) or "set timestamp_unit" in str(error)


@pytest.mark.parametrize("values", [[True], [[1]], [b"1"], [timedelta(1)]])
def test_other_types_are_refused(values):
    with pytest.raises(DataError, match="found values of type"):
        to_microseconds(column(values))


def test_an_unsigned_integer_beyond_64_bits_of_sign_is_out_of_range():
    with pytest.raises(DataError, match="outside the years"):
        to_microseconds(column([2**64 - 1], pl.UInt64))


def test_an_unknown_unit_is_refused():
    with pytest.raises(
        InvalidArgumentError, match="timestamp_unit: found 'min', expected one of s, ms, us, ns"
    ):
        to_microseconds(column([1]), "min")


def test_long_values_are_cut_in_messages():
    with pytest.raises(DataError) as caught:
        to_microseconds(column(["x" * 10_000]))
    assert len(str(caught.value)) < 200


DATES = ["20130701", "20130702", "19991231"]
SECONDS = [
    microseconds(datetime(int(text[:4]), int(text[4:6]), int(text[6:]), tzinfo=timezone.utc))
    for text in DATES
]


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64, pl.Int32, pl.UInt32, pl.Float64, pl.Decimal(20, 0)])
def test_a_column_of_dates_as_numbers_is_refused_and_read_as_what_the_caller_says(dtype):
    dates = column(DATES).cast(pl.Int64).cast(dtype)
    with pytest.raises(
        DataError, match=r"row 1, .* only such numbers: dates as YYYYMMDD, .*timestamp_unit.*time:YYYYMMDD"
    ):
        to_microseconds(dates)
    assert to_microseconds(dates, "YYYYMMDD").to_list() == SECONDS
    with pytest.warns(MetatlWarning, match="read as seconds since 1970: 1970-08-20 to 1970-08-21"):
        assert to_microseconds(dates, "s").to_list() == [int(text) * 1_000_000 for text in DATES]


def test_dates_with_a_time_as_numbers():
    moments = ["20130701120000", "20130702235959"]
    expected = [
        microseconds(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)) for text in moments
    ]
    for values in (column(moments), column(moments).cast(pl.Int64)):
        with pytest.raises(DataError, match="dates as YYYYMMDD"):
            to_microseconds(values)
        assert to_microseconds(values, "YYYYMMDD").to_list() == expected


@pytest.mark.parametrize(
    "values",
    [["20130701", "20131301"], ["20130701", "20130230"], ["20130701", "2013-07-01"], ["20130701", "5"]],
)
def test_a_number_that_is_no_date_is_named(values):
    with pytest.raises(DataError, match=r"row 2, .* expected a date as YYYYMMDD"):
        to_microseconds(column(values), "YYYYMMDD")


@pytest.mark.filterwarnings("ignore::metatl.exceptions.MetatlWarning")
def test_one_number_that_is_no_date_makes_the_column_seconds():
    assert to_microseconds(column([20130701, 20131301])).to_list() == [20130701 * 10**6, 20131301 * 10**6]


@pytest.mark.parametrize(
    ("values", "unit", "says"),
    [
        (
            [0, 1, 2],
            None,
            "column 'time': its numbers were read as seconds since 1970: 1970-01-01 to 1970-01-01",
        ),
        (["0", "31535999"], None, "1970-01-01 to 1970-12-31"),
        ([1_372_636_800, 1_372_636_801], "ms", "read as milliseconds since 1970: 1970-01-16 to 1970-01-16"),
        ([10**10, 10**10 + 1], None, "read as seconds since 1970: 2286-11-20 to 2286-11-20"),
        ([0.5, 1.5], None, "1970-01-01"),
    ],
)
def test_times_that_may_be_counters_are_taken_with_one_line(values, unit, says):
    with pytest.warns(MetatlWarning) as warned:
        found = to_microseconds(column(values), unit)
    assert found.null_count() == 0
    (line,) = [str(warning.message) for warning in warned]
    assert says in line


@pytest.mark.filterwarnings("error")
def test_usual_times_are_taken_without_a_word():
    to_microseconds(column([1_372_636_800, 5]))
    to_microseconds(column([31_536_000]))
    to_microseconds(column(["1970-01-01"]))


@pytest.mark.parametrize(
    ("dtype", "value"), [(pl.Float32, 2.0**24), (pl.Float32, 1_372_636_800), (pl.Float16, 2048.0)]
)
def test_rounded_times_are_refused(dtype, value):
    with pytest.raises(
        DataError, match=rf"row 2, column 'time': found .* of type {dtype}, in which such times are"
    ):
        to_microseconds(column([1.0, value]).cast(dtype))


def test_rows_that_cannot_be_read_are_named_at_once():
    with pytest.raises(DataError) as raised:
        to_microseconds(column(["2013-07-01", "soon", None, "2013-13-01", "2013-07-02"]))
    assert raised.value.row == 2
    assert "3 rows cannot be used: also row 3" in str(raised.value)
    assert "row 4, column 'time': found '2013-13-01'" in str(raised.value)


def test_null_values_of_times_are_null():
    found = to_microseconds(column(["1372636800", "NA", "", "1372636801"]), null_values=["NA", ""])
    assert found.to_list() == [1_372_636_800_000_000, None, None, 1_372_636_801_000_000]


def test_categories_are_read_as_their_text():
    texts = ["2013-07-01", "2013-07-02", "2013-07-01"]
    assert (
        to_microseconds(column(texts).cast(pl.Categorical)).to_list()
        == to_microseconds(column(texts)).to_list()
    )
