"""Tables of any library make the same interactions, and are taken wherever a frame is."""

from __future__ import annotations

import base64
import os
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest

import metatl
from metatl.data.frames import as_frame
from metatl.exceptions import ArgumentTypeError, DataError

ROWS = {
    "user_id": [1, 1, 2, 3],
    "item_id": ["a", "b", "a", "c"],
    "timestamp": [1_577_836_800, 1_577_836_801, 1_577_836_802, 1_577_836_803],
}


class ArrowOnly:
    """A table with nothing but the Arrow PyCapsule interface."""

    def __init__(self, frame):
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self._frame.__arrow_c_stream__(requested_schema)


def tables():
    frame = pl.DataFrame(ROWS)
    pandas = pd.DataFrame(ROWS)
    arrays = {name: np.array(values) for name, values in ROWS.items()}
    times = pd.to_datetime(pandas["timestamp"], unit="s")
    return {
        "polars": frame,
        "lazy": frame.lazy(),
        "arrow": ArrowOnly(frame),
        "pandas": pandas,
        "pandas, another index": pandas.set_index(pd.Index([9, 7, 5, 3])),
        "pandas, nullable": pandas.astype({"user_id": "Int64", "timestamp": "Int32"}),
        "pandas, categories": pandas.astype({"item_id": "category"}),
        "pandas, objects": pandas.astype(object),
        "pandas, floats": pandas.astype({"user_id": float}),
        "pandas, datetimes": pandas.assign(timestamp=times),
        "pandas, half an hour ahead": pandas.assign(
            timestamp=times.dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata")
        ),
        "records": np.rec.fromarrays(list(arrays.values()), names=list(arrays)),
        "structured, big-endian": np.array(
            list(zip(*ROWS.values(), strict=True)),
            dtype=[("user_id", ">i4"), ("item_id", "U3"), ("timestamp", ">i8")],
        ),
        "lists by name": ROWS,
        "arrays by name": arrays,
        "reversed views": {name: values[::-1] for name, values in arrays.items()},
        "small unsigned": frame.cast({"user_id": pl.UInt8, "timestamp": pl.UInt64}),
        "categories": frame.cast({"item_id": pl.Categorical, "timestamp": pl.String}).cast(
            {"timestamp": pl.Categorical}
        ),
        "enum": frame.cast({"item_id": pl.Enum(["a", "b", "c"])}),
        "binary": frame.cast({"item_id": pl.Binary}),
        "an index column": frame.with_columns(pl.Series("__index_level_0__", range(4))),
    }


@pytest.mark.parametrize("name", tables())
def test_every_table_makes_the_same_interactions(name):
    expected = metatl.Interactions.from_frame(pl.DataFrame(ROWS)).fingerprint
    assert metatl.Interactions.from_frame(tables()[name]).fingerprint == expected
    assert metatl.datasets.load(tables()[name]).fingerprint == expected


def written_by_arrow(path, frame, offset):
    """Write times with an offset of six letters, which Arrow takes and polars does not write."""
    named = frame.with_columns(pl.col("timestamp").mul(1_000_000).cast(pl.Datetime("us", "Turkey")))
    named.write_parquet(path)
    content = path.read_bytes()
    start = content.index(b"ARROW:schema")
    (found,) = re.finditer(rb"[A-Za-z0-9+/]{100,}=*", content[start:])
    schema = base64.b64decode(found[0])
    assert schema.count(b"Turkey") == 1
    path.write_bytes(content.replace(found[0], base64.b64encode(schema.replace(b"Turkey", offset.encode()))))


@pytest.mark.parametrize("offset", ["+05:30", "-03:30", "+14:00", "Turkey", "Nowher"])
def test_times_with_any_offset_are_instants(tmp_path, offset, capfd):
    path, frame = tmp_path / "a.parquet", pl.DataFrame(ROWS)
    written_by_arrow(path, frame, offset)
    found = metatl.read_interactions(path)
    assert found.fingerprint == metatl.Interactions.from_frame(frame).fingerprint
    assert capfd.readouterr().err == ""
    assert "POLARS_IGNORE_TIMEZONE_PARSE_ERROR" not in os.environ


def test_fit_and_evaluate_take_a_table(tmp_path):
    frame = metatl.datasets.xwines().to_frame()
    fitted = metatl.fit(frame.lazy(), model="popularity", out=tmp_path / "run")
    assert fitted.record.data is None
    of_file = metatl.fit("wines", model="popularity")
    assert fitted.record.dataset_fingerprint == of_file.record.dataset_fingerprint
    evaluation = metatl.evaluate(fitted, "full", data=frame.to_dict(as_series=False))
    assert evaluation.metrics == metatl.evaluate(of_file, "full").metrics
    renamed = frame.rename({"user_id": "who", "item_id": "what", "timestamp": "when"})
    named = metatl.fit(renamed, model="popularity", columns=("who", "what", "when"))
    assert named.record.dataset_fingerprint == of_file.record.dataset_fingerprint
    again = metatl.fit(frame, model="popularity", out=tmp_path / "run", resume=True)
    assert again.record == fitted.record


@pytest.mark.parametrize("value", [3, [1, 2], np.arange(3), "abc", None, object(), {1, 2}])
def test_what_is_no_table_is_refused(value):
    with pytest.raises(ArgumentTypeError, match=r"^data: found \w+, expected a table"):
        as_frame("data", value)


def test_a_masked_array_is_refused():
    masked = np.ma.masked_array([1, 2, 3, 4], mask=[False, True, False, False])
    with pytest.raises(ArgumentTypeError, match="column 'user_id': found a masked array"):
        metatl.Interactions.from_frame({**ROWS, "user_id": masked})
    records = np.ma.masked_array(np.zeros(2, [("user_id", "i8")]), mask=[True, False])
    with pytest.raises(ArgumentTypeError, match=r"^frame: found a masked array"):
        metatl.Interactions.from_frame(records)


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"^frame: found a table that cannot be read"):
        metatl.Interactions.from_frame({"user_id": [1], "item_id": [1, 2], "timestamp": [1]})
    twice = pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "user_id"])
    with pytest.raises(DataError, match="two columns of one name"):
        metatl.Interactions.from_frame(twice)
    nested = {**ROWS, "item_id": [[1], [2], [3], [4]]}
    with pytest.raises(DataError, match="column 'item_id': found values of type List"):
        metatl.Interactions.from_frame(nested)


def test_gaps_in_a_pandas_column_are_missing_and_not_text():
    for column in (
        ["a", None, "b", np.nan],
        pd.array([1, None, 2, 3], dtype="Int64"),
        [1.0, np.nan, 2.0, 3.0],
    ):
        with pytest.raises(DataError, match=r"row 2, column 'item_id': found (nothing|NaN), expected an id"):
            metatl.Interactions.from_frame(pd.DataFrame({**ROWS, "item_id": column}))


def test_integers_of_several_types_in_one_column_are_one_id():
    mixed = pd.DataFrame({**ROWS, "user_id": pd.Series([1, "1", 1.0, "x"], dtype=object)})
    assert metatl.Interactions.from_frame(mixed).user_ids.to_list() == ["1", "1.0", "x"]
    numbers = pd.DataFrame({**ROWS, "user_id": pd.Series([1, "1", 1.0, "2"], dtype=object)})
    assert metatl.Interactions.from_frame(numbers).user_ids.to_list() == [1, 2]
