"""Candidate sets in the forms of other evaluators: ReChorus, NCF, TREC.

These forms count users and items, and none has a place for what :class:`metatl.data.candidates.CandidateSets`
says of itself: keep the Parquet file beside them. Raw ids stay as they are where a form can hold them. Else
every id gets a number (users by their row, items by their place in `item_ids`), and the files `user_ids` or
`item_ids`, tab-separated with a header, say which raw id a number stands for.
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
    """Write a folder that ReChorus reads beside a `train.csv` of one's own.

    The form is that of its `data/README.md` (github.com/THUwangcy/ReChorus). `test.csv` is tab-separated with
    the columns `user_id`, `item_id` (the target), `time` and `neg_items` (a list as Python writes it).
    `history.csv` has the first three of these for the K items that a model sees; they belong at the end of
    `train.csv`. Candidates know an order and no dates: `time` is the place in the user's sequence, 1 to K in
    the history and K + 1 at the target. Ids are numbers from 1 on, for 0 stands for nothing there.

    Parameters
    ----------
    folder
        The folder; made if only itself is missing.
    sets
        The candidates.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    OSError
        If it cannot be written.
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

    The form is that of its README (github.com/hexiangnan/neural_collaborative_filtering).
    `PREFIX.test.rating` has a line `user`, `target`, 1, K + 1 for each user, tab-separated: the 1 is the
    rating, and the place in the user's sequence stands for a time. `PREFIX.test.negative` has in the same
    line `(user,target)` and the negatives, tab-separated. `PREFIX.history.rating` has the K items that a
    model sees, as in `test.rating`; they belong into `train.rating`. Ids are numbers from 0 on.

    Parameters
    ----------
    prefix
        What the names of the files start with.
    sets
        The candidates.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    OSError
        If it cannot be written.
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
    """Write the targets as relevance judgements in TREC's form, one line `user 0 target 1` for each user.

    Columns are separated by a space, so that ids with white space in them are numbered, from 0 on. There is
    no place for negatives: who evaluates with these gives runs of the candidates only.

    Parameters
    ----------
    path
        The file.
    sets
        The candidates.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    users, items = _tokens(sets.user_ids), _tokens(sets.item_ids)
    written = _write_ids(path.parent, f"{path.name}.", ".tsv", sets, users, items)
    table = pl.DataFrame({"user_id": users, "item_id": items.gather(sets.candidates[:, 0])}).select(
        "user_id", pl.lit(0).alias("iteration"), "item_id", pl.lit(1).alias("relevance")
    )
    return [*written, _write(path, table, header=False, separator=" ")]


def _numbers(ids: pl.Series, first: int) -> pl.Series:
    """Give the ids if they are whole numbers from `first` on; else a number for each."""
    if ids.dtype == pl.Int64 and (ids >= first).all():
        return ids
    return pl.Series(np.arange(first, first + len(ids)))


def _tokens(ids: pl.Series) -> pl.Series:
    """Give the ids if none has white space; else a number for each."""
    if ids.dtype == pl.String and ids.str.contains(r"\s").any():
        return pl.Series(np.arange(len(ids)))
    return ids


def _joined(items: pl.Series, matrix: NDArray[np.int64], separator: str) -> pl.Series:
    """Write the items of each row one after the other."""
    texts = items.cast(pl.String).gather(matrix.ravel())
    joined: pl.Series = texts.reshape(matrix.shape).arr.join(separator)
    return joined


def _history(sets: CandidateSets, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    """Give the items that a model sees, one a row, with their places in the sequence."""
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
    """Write which raw ids the numbers stand for, where they are not the raw ids."""
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
