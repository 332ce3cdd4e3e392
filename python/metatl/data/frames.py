"""Tables in memory, of any library, as polars frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, Union

import numpy as np
import polars as pl

from metatl.common.forks import refuse_forked_child
from metatl.data.time_zones import in_utc, unknown_zones_accepted
from metatl.exceptions import ArgumentTypeError, DataError


class ArrowTable(Protocol):
    """A table with the Arrow PyCapsule interface, as those of pyarrow, pandas, DuckDB and Ibis."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the columns."""
        ...


FrameLike: TypeAlias = Union[pl.DataFrame, pl.LazyFrame, ArrowTable, "np.ndarray", Mapping[str, Any]]
"""A table of polars, pandas or Arrow, a structured array of NumPy, or columns by their names."""


def is_frame(value: object) -> bool:
    """Tell whether a value is a table in memory that :func:`as_frame` takes."""
    if isinstance(value, np.ndarray):
        return value.dtype.names is not None
    return (
        isinstance(value, (pl.DataFrame, pl.LazyFrame, Mapping))
        or hasattr(value, "__arrow_c_stream__")
        or _is_pandas(value)
    )


def as_frame(argument: str, table: FrameLike) -> pl.DataFrame:
    """Convert a table to a polars frame.

    Parameters
    ----------
    argument : str
        The name of the argument, for errors.
    table : table
        A frame of polars (also lazy) or pandas, anything with the Arrow PyCapsule interface, a structured or
        record array of NumPy, or a mapping of names to columns.

    Returns
    -------
    polars.DataFrame
        The same columns. The index of a pandas frame is left out.

    Raises
    ------
    ArgumentTypeError
        If it is none of these.
    DataError
        If a column cannot be converted; it names the column.
    """
    refuse_forked_child()
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if not is_frame(table):
        raise ArgumentTypeError(
            f"{argument}: found {type(table).__name__}, expected a table: a frame of polars or pandas, an "
            "Arrow table, a structured array, or a mapping of names to columns"
        )
    if _is_pandas(table):
        names = list(table.columns)  # type: ignore[union-attr]
        if len({str(name) for name in names}) < len(names):
            raise DataError(f"{argument}: found two columns of one name, expected different names")
        return _from_columns(argument, {str(name): table[name] for name in names})  # type: ignore[index]
    if isinstance(table, np.ndarray):
        refuse_masked(argument, table)
        return _from_columns(argument, {str(name): table[name].ravel() for name in table.dtype.names or ()})
    if isinstance(table, Mapping):
        return _from_columns(argument, dict(table))
    try:
        with unknown_zones_accepted():
            frame = pl.DataFrame(table)
            return frame.with_columns(in_utc(frame.schema))
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 (of whatever library made the table)
        raise DataError(f"{argument}: {_reason(error)}") from None


def refuse_masked(argument: str, array: object) -> None:
    """Refuse an array of `numpy.ma`: what is under its mask is not a value.

    Parameters
    ----------
    argument : str
        The name of the argument, for the error.
    array : object
        Any value.

    Raises
    ------
    ArgumentTypeError
        If it is a masked array.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"{argument}: found a masked array, expected one without a mask; leave its masked values out, or "
            "fill them with .filled(value)"
        )


def _is_pandas(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "columns")


def _from_columns(argument: str, columns: Mapping[Any, Any]) -> pl.DataFrame:
    series = []
    for name, values in columns.items():
        refuse_masked(f"{argument}: column {name!r}", values)
        series.append(_column(argument, str(name), values))
    try:
        return pl.DataFrame(series)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{argument}: {_reason(error)}") from None


def _column(argument: str, name: str, values: Any) -> pl.Series:
    try:
        if isinstance(values, pl.Series):
            return values.alias(name)
        if hasattr(values, "to_numpy"):
            # pandas: without pyarrow, polars takes its columns only as arrays.
            missing = np.asarray(values.isna()) if hasattr(values, "isna") else None
            values = _pandas_values(values)
            if values.dtype == object:
                listed = [None if empty else value for value, empty in zip(values, missing, strict=True)]  # type: ignore[arg-type]
                return _from_objects(name, listed)
        if isinstance(values, np.ndarray):
            if values.dtype == object:
                return _from_objects(name, values.tolist())
            if values.dtype.byteorder not in ("=", "|"):
                values = values.astype(values.dtype.newbyteorder("="))
            return pl.Series(name, np.ascontiguousarray(values))
        return _from_objects(name, list(values))
    except Exception as error:  # noqa: BLE001 (polars raises errors of many types here)
        raise DataError(f"{argument}: {_reason(error)}", column=name) from None


def _pandas_values(values: Any) -> np.ndarray:
    """Take the values of a pandas column: integers with gaps and texts as objects, times as datetime64."""
    dtype = values.dtype
    if getattr(dtype, "tz", None) is not None:
        return np.asarray(values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    if isinstance(dtype, np.dtype):
        return np.asarray(values.to_numpy())
    if getattr(dtype, "kind", "O") in "iufb" and not values.isna().any():
        return np.asarray(values.to_numpy(dtype=dtype.numpy_dtype))
    return np.asarray(values.to_numpy(dtype=object))


def _from_objects(name: str, values: list[Any]) -> pl.Series:
    """Build a column of Python objects; ids of several types in one column become text."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds <= {int, str, float, bool}:
        if kinds <= {int, float}:
            return pl.Series(name, values, strict=False)
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    return pl.Series(name, values)


def _reason(error: BaseException) -> str:
    return f"found a table that cannot be read ({' '.join(str(error).split())[:120]})"
