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

    from metatl.data.interactions import Interactions
    from metatl.data.timestamps import TimestampUnit

__all__ = ["BUNDLED", "item_names", "load", "source", "xwines"]

BUNDLED = "wines"
"""Name of the bundled data set, wherever a command or a function takes data."""


def xwines() -> Interactions:
    """Load the bundled wine ratings.

    Returns
    -------
    Interactions
        150,000 interactions of 10,561 users with 1,007 wines, 2012 to 2021; ids are integers.
    """
    from metatl.data.readers.interaction_files import read_interactions

    with resources.as_file(resources.files(__name__) / "xwines_slim.tsv.gz") as path:
        return read_interactions(path)


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

    with resources.as_file(resources.files(__name__) / "xwines_slim_wines.csv.gz") as path:
        wines = pl.read_csv(path, columns=["WineID", "WineName", "WineryName"])
    names = wines["WineName"] + ", " + wines["WineryName"]
    return dict(zip(wines["WineID"].to_list(), names.to_list(), strict=True))


def load(
    data: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    timestamp_unit: TimestampUnit | None = None,
) -> Interactions:
    """Load a data set by the name that commands use.

    Parameters
    ----------
    data : str or os.PathLike
        `wines` for the bundled data, otherwise the path of a file. A file of the name `wines` is `./wines`.
    columns : sequence of str, optional
        Names of the user, item and timestamp columns of a file. By default the usual names are looked for.
    timestamp_unit : {"s", "ms", "us", "ns"}, optional
        Unit of numeric timestamps of a file; by default seconds, or what a published format uses.

    Returns
    -------
    Interactions
        The data set.

    Raises
    ------
    ConfigError
        If columns are named for the bundled data.
    InvalidArgumentError
        If `data` is not a path, or `columns` are not three names.
    MissingFileError
        If there is no such file.
    DataError
        If the file cannot be used; see :func:`metatl.data.readers.interaction_files.read_interactions`.
    """
    from metatl.common.arguments import check_type
    from metatl.data.readers.interaction_files import read_interactions
    from metatl.exceptions import ConfigError, InvalidArgumentError

    check_type(
        "data",
        data,
        (str, os.PathLike),
        "'wines' or the path of a file; metatl.Interactions.from_frame makes Interactions of a table",
    )
    if data == BUNDLED:
        if columns is not None:
            raise ConfigError("columns: found names, expected none: the bundled wines need none")
        if timestamp_unit is not None:
            raise ConfigError("timestamp_unit: found a unit, expected none: the bundled wines need none")
        return xwines()
    user = item = timestamp = None
    if columns is not None:
        if not isinstance(columns, (list, tuple)) or [type(name) for name in columns] != [str] * 3:
            raise InvalidArgumentError(
                f"columns: found {columns!r}, expected three names: of the user, the item and the timestamp"
            )
        user, item, timestamp = columns
    return read_interactions(
        data, user_column=user, item_column=item, timestamp_column=timestamp, timestamp_unit=timestamp_unit
    )


def source(data: str | os.PathLike[str]) -> str:
    """Return a name of the data that is valid in every folder: `wines`, or an absolute path."""
    return BUNDLED if data == BUNDLED else str(Path(data).absolute())
