"""Data sets by name: the bundled one, and files by their path.

The bundled data are X-Wines Slim (150,000 ratings of 1,007 wines, CC0 1.0): de Azambuja, Morais and Filipe,
*X-Wines: A Wine Dataset for Recommender Systems and Machine Learning*, Big Data Cogn. Comput. 2023, 7, 20,
doi:10.3390/bdcc7010020.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from metatl.data.frames import FrameLike
    from metatl.data.interactions import BadRows, Interactions, Repeats
    from metatl.data.timestamps import TimestampUnit

__all__ = ["BUNDLED", "item_names", "item_table", "load", "source", "xwines"]

BUNDLED = "wines"
"""Name of the bundled data set, wherever a command or a function takes data."""


def xwines(*, repeats: Repeats = "first") -> Interactions:
    """Load the bundled wine ratings.

    Parameters
    ----------
    repeats : {"first", "all"}
        Which ratings of a wine by the same user are kept; no user has rated one twice.

    Returns
    -------
    Interactions
        150,000 interactions of 10,561 users with 1,007 wines, 2012 to 2021; ids are integers.
    """
    from metatl.data.readers.interaction_files import read_interactions

    with resources.as_file(resources.files(__name__) / "xwines_slim.tsv.gz") as path:
        return read_interactions(path, repeats=repeats)


def item_table() -> pl.DataFrame:
    """Load the table of the bundled wines.

    Returns
    -------
    polars.DataFrame
        1,007 rows: ``item_id``; as text ``title``, ``winery``, ``country``, ``region``, ``type``, ``grapes``,
        ``body`` and ``acidity``; ``abv`` as a number.
    """
    import polars as pl

    from metatl.common.forks import refuse_forked_child

    refuse_forked_child()
    with resources.as_file(resources.files(__name__) / "xwines_slim_wines.csv.gz") as path:
        wines = pl.read_csv(path)
    return wines.select(
        pl.col("WineID").alias("item_id"),
        pl.col("WineName").alias("title"),
        pl.col("WineryName").alias("winery"),
        pl.col("Country").alias("country"),
        pl.col("RegionName").alias("region"),
        pl.col("Type").alias("type"),
        pl.col("Grapes").str.replace_all(r"[\['\"\]]", "").alias("grapes"),
        pl.col("Body").alias("body"),
        pl.col("Acidity").alias("acidity"),
        pl.col("ABV").alias("abv"),
    )


def item_names() -> dict[int, str]:
    """Load the names of the bundled wines.

    Returns
    -------
    dict
        Raw item ids to names and wineries; no two values are equal.

    Examples
    --------
    >>> item_names()[100003]
    'Cabernet Sauvignon, Castellamare'
    """
    import polars as pl

    from metatl.common.forks import refuse_forked_child

    refuse_forked_child()
    with resources.as_file(resources.files(__name__) / "xwines_slim_wines.csv.gz") as path:
        wines = pl.read_csv(path, columns=["WineID", "WineName", "WineryName"])
    names = wines["WineName"] + ", " + wines["WineryName"]
    return dict(zip(wines["WineID"].to_list(), names.to_list(), strict=True))


def load(
    data: str | os.PathLike[str] | FrameLike,
    columns: Sequence[str] | None = None,
    timestamp_unit: TimestampUnit | None = None,
    *,
    null_values: Sequence[str] | None = None,
    bad_rows: BadRows | None = None,
    repeats: Repeats | None = None,
) -> Interactions:
    """Load a data set by the name that commands use, or make one of a table in memory.

    Parameters
    ----------
    data : str, os.PathLike or table
        `wines` for the bundled data, otherwise the path of a file, or a table as
        :meth:`metatl.Interactions.from_frame` takes it. A file of the name `wines` is `./wines`.
    columns : sequence of str, optional
        Names of the user, item and timestamp columns. By default the usual names are looked for.
    timestamp_unit : {"s", "ms", "us", "ns", "YYYYMMDD"}, optional
        Unit of numeric timestamps; by default seconds, or what a published format uses.
    null_values : sequence of str, optional
        Texts that stand for a missing value; rows that have one are left out. See
        :func:`metatl.data.readers.interaction_files.read_interactions`.
    bad_rows : {"error", "skip"}, optional
        What to do with rows that cannot be used; an error by default.
    repeats : {"first", "all"}, optional
        Which interactions of a user with the same item are kept; the first by default.

    Returns
    -------
    Interactions
        The data set.

    Raises
    ------
    ConfigError
        If columns are named for the bundled data.
    InvalidArgumentError
        If `data` is neither a path nor a table, or `columns` are not three names.
    MissingFileError
        If there is no such file.
    DataError
        If the file cannot be used; see :func:`metatl.data.readers.interaction_files.read_interactions`.
    """
    from metatl.common.arguments import check_type, did_you_mean
    from metatl.common.forks import refuse_forked_child
    from metatl.data.frames import is_frame
    from metatl.data.interactions import Interactions
    from metatl.data.readers.interaction_files import read_interactions
    from metatl.exceptions import ConfigError, InvalidArgumentError, MissingFileError

    refuse_forked_child()
    in_memory = is_frame(data)
    if not in_memory:
        check_type("data", data, (str, os.PathLike), "'wines', the path of a file, or a table")
    if isinstance(data, str) and data == BUNDLED:
        if columns is not None:
            raise ConfigError("columns: found names, expected none: the bundled wines need none")
        if timestamp_unit is not None:
            raise ConfigError("timestamp_unit: found a unit, expected none: the bundled wines need none")
        return xwines(repeats=repeats or "first")
    user = item = timestamp = None
    if columns is not None:
        if not isinstance(columns, (list, tuple)) or [type(name) for name in columns] != [str] * 3:
            raise InvalidArgumentError(
                f"columns: found {columns!r}, expected three names: of the user, the item and the timestamp"
            )
        user, item, timestamp = columns
    read = Interactions.from_frame if in_memory else read_interactions
    try:
        return read(
            data,  # type: ignore[arg-type]
            user_column=user,
            item_column=item,
            timestamp_column=timestamp,
            timestamp_unit=timestamp_unit,
            null_values=null_values,
            bad_rows=bad_rows or "error",
            repeats=repeats or "first",
        )
    except MissingFileError as error:
        hint = did_you_mean(data, [BUNDLED])
        raise MissingFileError(error.message + hint, file=error.file) from None


def source(data: str | os.PathLike[str]) -> str:
    """Return a name of the data that is valid in every folder: `wines`, or an absolute path."""
    return BUNDLED if data == BUNDLED else str(Path(data).absolute())
