"""Raw item ids of an external system, and the indices of the candidates' items among them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.readers.parquet_files import read_parquet
from metatl.data.readers.regular_files import check_file
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from polars.datatypes import DataType


def find_indices(wanted: pl.Series, ids: pl.Series) -> np.ndarray:
    """Find the indices of ids in a series of distinct ids.

    Parameters
    ----------
    wanted : polars.Series
        (B,) ids.
    ids : polars.Series
        (I,) distinct ids of the same type.

    Returns
    -------
    ndarray
        (B,) int64: the index of each id in `ids`; -1 where it is not there.
    """
    table = pl.DataFrame({"id": ids, "index": np.arange(len(ids))})
    joined = pl.DataFrame({"id": wanted}).join(table, on="id", how="left", maintain_order="left")
    return joined["index"].fill_null(-1).to_numpy()


def read_items(source: pl.Series | pl.DataFrame | str | os.PathLike[str], dtype: DataType) -> pl.DataFrame:
    """Read the ids of a catalogue.

    Parameters
    ----------
    source : polars.Series, polars.DataFrame, str or path
        A series of ids, or a frame, a Parquet file or a CSV file with the column ``item_id`` and optionally
        ``count``, an integer of at least 0.
    dtype : polars.DataType
        The expected type of the ids.

    Returns
    -------
    polars.DataFrame
        ``item_id`` and, if the source has it, ``count`` (Int64).

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing or of another type, or an id occurs twice.
    """
    if not isinstance(source, (str, os.PathLike)):
        table = source.to_frame("item_id") if isinstance(source, pl.Series) else source
        return _checked(table, dtype)
    path = Path(source)
    try:
        if path.suffix.lower() == ".parquet":
            return _checked(read_parquet(path).rows, dtype)
        return _checked(_read_text(path, dtype), dtype)
    except DataError as error:
        raise error.in_file(path) from None


def _read_text(path: Path, dtype: DataType) -> pl.DataFrame:
    check_file(path)
    try:
        table = pl.read_csv(path, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError:
        raise DataError("found an empty file, expected a header and rows") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"found a damaged table ({reason})") from None
    types = {"item_id": dtype, "count": pl.Int64()}
    return table.with_columns(
        pl.col(name).cast(types[name], strict=False) for name in table.columns if name in types
    )


def _checked(table: pl.DataFrame, dtype: DataType) -> pl.DataFrame:
    if "item_id" not in table.columns:
        raise DataError(f"item_ids: found no column 'item_id' among {quoted(table.columns)}")
    ids = table["item_id"]
    if ids.dtype != dtype:
        raise DataError(f"item_ids: found ids of type {ids.dtype}, expected {dtype}", column="item_id")
    if ids.null_count():
        raise DataError("item_ids: found a row without an id", column="item_id")
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        raise DataError(f"item_ids: found {repeated[0]!r} twice, expected distinct ids", column="item_id")
    if "count" not in table.columns:
        return table.select("item_id")
    counts = table["count"]
    if not counts.dtype.is_integer() or counts.null_count() or (counts < 0).any():
        raise DataError("item_ids: expected integers of at least 0", column="count")
    return table.select("item_id", pl.col("count").cast(pl.Int64))
