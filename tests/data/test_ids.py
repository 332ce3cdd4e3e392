"""The rule of ids: one id whatever the source, the type and the spelling."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.common.row_faults import RowFaults
from metatl.data.ids import BLANKS, find_ids, id_text, normalise, number_ids
from metatl.exceptions import ArgumentTypeError, DataError

integers = st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=1, max_size=20)


def spellings(number):
    """Every way in which files and libraries write an integer."""
    return [
        pl.Series([number]),
        pl.Series([str(number)]),
        pl.Series([f" {number}\t"]),
        pl.Series([f"\ufeff{number}"]),
        pl.Series([f"{number}.0"]),
        pl.Series([f"{number}.00"]),
        pl.Series([f"{number}."]),
        pl.Series([Decimal(number)]),
        pl.Series([Decimal(number).quantize(Decimal("0.01"))]),
        pl.Series([float(number)]),
        pl.Series([str(number)], dtype=pl.Categorical),
        pl.Series([str(number).encode()]),
    ]


@given(integers)
def test_an_integer_is_one_however_it_is_written(numbers):
    for columns in zip(*map(spellings, numbers), strict=True):
        column = pl.concat([values.cast(columns[0].dtype, strict=True) for values in columns])
        ids = normalise(column)
        assert ids.dtype == pl.Int64
        assert ids.to_list() == numbers


def test_formatters_write_large_numbers_with_an_exponent():
    assert normalise(pl.Series(["1e+05", "99999", "1.5e+06"])).to_list() == [100_000, 99_999, 1_500_000]
    assert normalise(pl.Series(["1e5", "2"])).to_list() == ["1e5", "2"]
    assert normalise(pl.Series(["1.5e+00", "2"])).to_list() == ["1.5e+00", "2"]


@pytest.mark.parametrize("spelling", ["007", "12a", "+5", "-0", "1,000", "0x1F", "1_000", "٣", "1.5"])
def test_a_spelling_that_no_integer_has_keeps_the_column_as_text(spelling):
    assert normalise(pl.Series([spelling, " 1000 ", "1000.0"])).to_list() == [spelling, "1000", "1000.0"]


def test_integers_of_more_than_64_bits_are_text():
    large = 2**63
    expected = [str(large), "5"]
    assert normalise(pl.Series([large, 5], dtype=pl.UInt64)).to_list() == expected
    assert normalise(pl.Series([str(large), "5"])).to_list() == expected
    assert normalise(pl.Series([Decimal(large), Decimal(5)])).to_list() == expected
    assert normalise(pl.Series([f"{large}", "5."])).to_list() == expected


@pytest.mark.parametrize(("dtype", "bits"), [(pl.Float16, 11), (pl.Float32, 24), (pl.Float64, 53)])
@pytest.mark.parametrize("sign", [1, -1])
def test_floats_are_exact_below_two_to_their_bits(dtype, bits, sign):
    exact = sign * (2**bits - 1)
    assert normalise(pl.Series("item", [exact, 1], dtype=dtype)).to_list() == [exact, 1]
    with pytest.raises(
        DataError, match=rf"row 2, column 'item': found .* of type {dtype}.*2\^{bits} on are rounded"
    ):
        normalise(pl.Series("item", [1, sign * 2**bits], dtype=dtype))


def test_a_rounded_float_in_text_is_refused():
    with pytest.raises(DataError, match=r"row 2, column 'item': found '9007199254740992.0', a float from"):
        normalise(pl.Series("item", ["1", "9007199254740992.0"]))
    assert normalise(pl.Series(["1", "9007199254740993"])).to_list() == [1, 9007199254740993]


@given(st.text(st.characters(codec="utf-8"), max_size=6))
def test_white_space_around_an_id_does_not_belong_to_it(text):
    stripped = text.strip(BLANKS)
    column = pl.Series("user", ["A", text])
    if stripped:
        assert normalise(column).to_list() == ["A", stripped]
    else:
        with pytest.raises(DataError, match="row 2, column 'user': found nothing, expected an id"):
            normalise(column)


def test_blanks_are_those_of_python_and_the_byte_order_mark():
    spaces = "".join(map(chr, filter(lambda code: chr(code).isspace(), range(0x110000))))
    assert set(BLANKS) == {*spaces, "\ufeff"}


@pytest.mark.parametrize(
    "name", ["NA", "nan", "NaN", "NULL", "null", "None", "inf", "-inf", "<NA>", r"\N", "#N/A"]
)
def test_the_name_of_a_missing_value_is_refused_among_numbers_only(name):
    with pytest.raises(
        DataError, match=r"row 2, column 'user': found .* among numbers, expected an id; .*--null-values"
    ):
        normalise(pl.Series("user", ["5", name, "007"]))
    assert normalise(pl.Series(["5", name, "x"])).to_list() == ["5", name, "x"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floats_that_are_no_number_are_no_id(value):
    with pytest.raises(DataError, match=r"row 2, column 'user': found (NaN|-?inf), expected an id"):
        normalise(pl.Series("user", [1.0, value]))


def number(column, **options):
    faults = RowFaults()
    ids, numbers = number_ids(column, faults, **options)
    return ids.to_list(), numbers.tolist(), faults


def test_null_values_are_missing_and_all_other_texts_are_ids():
    column = pl.Series(["5", "NA", "7", "NULL"])
    ids, numbers, faults = number(column, null_values=["NA", "NULL"])
    assert (ids, numbers, len(faults)) == ([5, 7], [0, -1, 1, -1], 0)
    ids, numbers, faults = number(column, null_values=[""])
    assert (ids, numbers, len(faults)) == (["5", "7", "NA", "NULL"], [0, 2, 1, 3], 0)
    ids, numbers, faults = number(pl.Series(["5", None, " "]), null_values=[""])
    assert (ids, numbers, len(faults)) == ([5], [0, -1, -1], 0)
    _, _, faults = number(pl.Series(["5", None, " "]), null_values=["NA"])
    assert len(faults) == 2
    assert number(pl.Series([1.0, float("nan")]), null_values=["NaN"])[1] == [0, -1]


@given(st.lists(st.sampled_from(["1", " 1", "1.0", "2", "", "NA", "9"]), min_size=1, max_size=30))
def test_rows_are_numbered_as_a_dictionary_does(texts):
    meaning = {"1": 1, " 1": 1, "1.0": 1, "2": 2, "9": 9}
    has_number = any(text in meaning for text in texts)
    if not has_number and "NA" in texts:
        meaning["NA"] = "NA"
    expected = [meaning.get(text) for text in texts]
    distinct = sorted({value for value in expected if value is not None})
    ids, numbers, faults = number(pl.Series(texts))
    assert ids == distinct
    assert numbers == [-1 if value is None else distinct.index(value) for value in expected]
    assert len(faults) == expected.count(None)
    bad = [row for row, value in enumerate(expected, start=1) if value is None]
    assert [error.row for error in faults.first()] == bad[:10]


def test_ids_are_found_by_their_text_and_by_their_integer():
    numbers, texts = pl.Series([5, 1000, 7]), pl.Series(["1000", "A", "007"])
    wanted = ["1000.0", " 7", np.float32(5), 5.0, np.int8(7), "x", "007"]
    assert find_ids(numbers, wanted).tolist() == [1, 2, 0, 0, 2, -1, -1]
    for column in spellings(1000):
        assert find_ids(numbers, column).tolist() == [1]
        assert find_ids(texts, column).tolist() == [0]
    assert find_ids(texts, [" A ", "a", "007", "7", 7]).tolist() == [1, -1, 2, -1, -1]
    assert find_ids(texts, pl.Series(["A", None])).tolist() == [1, -1]
    mixed = pl.Series(["A", "1000.0"])
    assert find_ids(mixed, pl.Series(["1000.0", "A"])).tolist() == [1, 0]


@pytest.mark.parametrize("value", [[1], {"a": 1}, np.float32(2**24), -(2.0**53), np.arange(2)])
def test_what_cannot_be_an_id_is_refused(value):
    with pytest.raises(ArgumentTypeError, match=r"^found .* as an item id"):
        id_text(value)


@pytest.mark.parametrize("column", [pl.Series([[1]]), pl.Series([{"a": 1}]), pl.Series([object()])])
def test_values_that_are_not_scalar_are_refused(column):
    for function in (normalise, lambda wanted: find_ids(pl.Series([1]), wanted)):
        with pytest.raises(DataError, match="found values of type"):
            function(column)
