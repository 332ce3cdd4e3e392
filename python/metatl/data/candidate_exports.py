"""Candidate sets in the formats of other evaluators: ReChorus, NCF, TREC.

These formats number users and items, and cannot hold the protocol of
:class:`metatl.data.candidates.CandidateSets`: keep the Parquet file with them. Raw ids are kept where the
format can hold them. Otherwise each id gets a number (users by their row, items by their index in
`item_ids`), and the files `user_ids` or `item_ids`, tab-separated with a header, map the numbers to raw ids.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from metatl.common.files import replace_file

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from metatl.data.candidates import CandidateSets


def write_rechorus(folder: str | os.PathLike[str], sets: CandidateSets) -> list[Path]:
    """Write a folder for ReChorus, to which a `train.csv` must be added.

    `data/README.md` of ReChorus (github.com/THUwangcy/ReChorus) describes the format. `test.csv` is
    tab-separated with the columns `user_id`, `item_id` (the target), `time` and `neg_items` (a list in Python
    syntax). `history.csv` has the first three of these columns for the K items that a model sees; append them
    to `train.csv`. Candidate sets have an order and no dates: `time` is the index in the user's sequence, 1
    to K in the history and K + 1 for the target. Ids are numbers from 1 on, because 0 is padding there.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder. It is made if its parent exists.
    sets : CandidateSets
        The candidates.

    Returns
    -------
    list of pathlib.Path
        The files that were written.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    users, items = _numbers(sets.user_ids, 1), _numbers(sets.item_ids, 1)
    written = _write_ids(folder, "", ".csv", sets, users, items)
    test = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items.gather(sets.candidates[:, 0]),
            "time": np.full(len(users), sets.k + 1),
            "neg_items": "[" + _joined(items, sets.candidates[:, 1:], ", ") + "]",
        }
    )
    history = _history(sets, users, items)
    return [
        *written,
        _write(folder / "history.csv", history, header=True),
        _write(folder / "test.csv", test, header=True),
    ]


def write_ncf(prefix: str | os.PathLike[str], sets: CandidateSets) -> list[Path]:
    """Write the files of the program of He et al., *Neural Collaborative Filtering*, WWW 2017.

    Its README (github.com/hexiangnan/neural_collaborative_filtering) describes the format.
    `PREFIX.test.rating` has a tab-separated line `user`, `target`, 1, K + 1 for each user: 1 is the rating,
    and the index in the sequence of the user takes the place of a time. `PREFIX.test.negative` has
    `(user,target)` and the negatives in the same line, tab-separated. `PREFIX.history.rating` has the K items
    that a model sees, as in `test.rating`; add them to `train.rating`. Ids are numbers from 0 on.

    Parameters
    ----------
    prefix : str or os.PathLike
        The start of the names of the files.
    sets : CandidateSets
        The candidates.

    Returns
    -------
    list of pathlib.Path
        The files that were written.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    prefix = Path(prefix)
    users, items = _numbers(sets.user_ids, 0), _numbers(sets.item_ids, 0)
    written = _write_ids(prefix.parent, f"{prefix.name}.", ".tsv", sets, users, items)
    targets = items.gather(sets.candidates[:, 0])
    ones = pl.lit(1).alias("rating")
    rating = pl.DataFrame({"user_id": users, "item_id": targets}).select(
        "user_id", "item_id", ones, pl.lit(sets.k + 1).alias("time")
    )
    pairs = "(" + users.cast(pl.String) + "," + targets.cast(pl.String) + ")"
    negative = pl.DataFrame({"pair": pairs, "negatives": _joined(items, sets.candidates[:, 1:], "\t")})
    history = _history(sets, users, items).select("user_id", "item_id", ones, "time")
    tables = {"history.rating": history, "test.rating": rating, "test.negative": negative}
    return [
        *written,
        *(
            _write(prefix.with_name(f"{prefix.name}.{name}"), table, header=False)
            for name, table in tables.items()
        ),
    ]


def write_qrels(path: str | os.PathLike[str], sets: CandidateSets) -> list[Path]:
    """Write the targets as relevance judgements of TREC, one line `user 0 target 1` for each user.

    Columns are separated by a space, so ids that contain white space are numbered from 0 on. The format does
    not hold negatives: evaluate runs that rank the candidates only.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    sets : CandidateSets
        The candidates.

    Returns
    -------
    list of pathlib.Path
        The files that were written.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    path = Path(path)
    users, items = _tokens(sets.user_ids), _tokens(sets.item_ids)
    written = _write_ids(path.parent, f"{path.name}.", ".tsv", sets, users, items)
    table = pl.DataFrame({"user_id": users, "item_id": items.gather(sets.candidates[:, 0])}).select(
        "user_id", pl.lit(0).alias("iteration"), "item_id", pl.lit(1).alias("relevance")
    )
    return [*written, _write(path, table, header=False, separator=" ")]


def _numbers(ids: pl.Series, first: int) -> pl.Series:
    """Return the ids if they are integers from `first` on; otherwise a number for each."""
    if ids.dtype == pl.Int64 and (ids >= first).all():
        return ids
    return pl.Series(np.arange(first, first + len(ids)))


def _tokens(ids: pl.Series) -> pl.Series:
    """Return the ids if none has white space; otherwise a number for each."""
    if ids.dtype == pl.String and ids.str.contains(r"\s").any():
        return pl.Series(np.arange(len(ids)))
    return ids


def _joined(items: pl.Series, matrix: NDArray[np.int64], separator: str) -> pl.Series:
    """Join the items of each row."""
    texts = items.cast(pl.String).gather(matrix.ravel())
    joined: pl.Series = texts.reshape(matrix.shape).arr.join(separator)
    return joined


def _history(sets: CandidateSets, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    """Return the items that a model sees, one per row, with their indices in the sequence, from 1."""
    count = len(users)
    return pl.DataFrame(
        {
            "user_id": users.gather(np.repeat(np.arange(count), sets.k)),
            "item_id": items.gather(sets.histories.items),
            "time": np.tile(np.arange(1, sets.k + 1), count),
        }
    )


def _write_ids(
    folder: Path, prefix: str, suffix: str, sets: CandidateSets, users: pl.Series, items: pl.Series
) -> list[Path]:
    """Write the raw ids of the numbers, where the numbers are not the raw ids."""
    written = []
    for name, numbers, raw_ids in (("user", users, sets.user_ids), ("item", items, sets.item_ids)):
        if numbers is not raw_ids:
            table = pl.DataFrame({f"{name}_id": numbers, "raw_id": raw_ids})
            path = folder / f"{prefix}{name}_ids{suffix}"
            written.append(_write(path, table, header=True, quote="necessary"))
    return written


def _write(
    path: Path,
    table: pl.DataFrame,
    *,
    header: bool,
    separator: str = "\t",
    quote: Literal["never", "necessary"] = "never",
) -> Path:
    content = io.BytesIO()
    table.write_csv(content, include_header=header, separator=separator, quote_style=quote)
    with replace_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return path
