"""Reports of panics do not reach the terminal; everything else does."""

from __future__ import annotations

import os

import polars as pl
import pytest

import metatl
from metatl.common.panics import reports_of_panics_dropped
from metatl.exceptions import DataError


def test_other_text_is_written_and_a_report_is_not(capfd):
    with reports_of_panics_dropped():
        os.write(2, b"a warning\n")
    with reports_of_panics_dropped():
        os.write(2, b"thread 'x' panicked at y.rs:1:1:\nout of range\n")
    with pytest.raises(OSError, match="Bad file"), reports_of_panics_dropped():
        os.write(os.write(2, b"before the error\n") + 1000, b"nowhere")
    assert capfd.readouterr().err == "a warning\nbefore the error\n"


@pytest.mark.parametrize("dtype", [pl.Date, pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns")])
@pytest.mark.parametrize("number", [2**31 - 1, -(2**31)])
def test_dates_that_no_calendar_has_are_one_error(tmp_path, capfd, dtype, number):
    size = 2**31 if dtype == pl.Date else 2**63
    value = (size - 1) if number > 0 else -size
    physical = pl.Series([value], dtype=pl.Int32 if dtype == pl.Date else pl.Int64)
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": physical.cast(dtype)})
    path = tmp_path / "a.parquet"
    frame.write_parquet(path)
    if dtype == pl.Datetime("ns"):
        assert metatl.read_interactions(path).num_interactions == 1
    else:
        with pytest.raises(
            DataError, match=rf"row 1, column 'timestamp': found {value}, outside the years 1 to 9999"
        ):
            metatl.read_interactions(path)
    assert capfd.readouterr().err == ""
