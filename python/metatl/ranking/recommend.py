"""Recommend items to new users from the raw ids of the items in their histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from metatl.common.arguments import check_type, whole_number
from metatl.common.forks import refuse_forked_child
from metatl.data.frames import refuse_masked
from metatl.data.histories import Histories
from metatl.data.ids import find_ids, id_text
from metatl.data.interactions import Interactions, count_distinct
from metatl.exceptions import ArgumentTypeError
from metatl.ranking.rank import top_n
from metatl.runs.run_directory import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.ranking.item_tables import ItemFormat, ItemTable

MAX_HISTORY = 50
"""Number of latest known items that the model sees; older ones are only excluded from the list."""

Basis = Literal["history", "popularity"]


@dataclass(frozen=True)
class Recommendation:
    """A recommended item.

    Attributes
    ----------
    item_id : object
        Raw item id.
    score : float
        The model's score, or the number of training interactions if the basis is popularity; higher is
        better.
    """

    item_id: Any
    score: float


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Recommended items of B users.

    Attributes
    ----------
    item_ids : polars.Series
        (I,) raw item ids, indexed by `items`.
    items : ndarray
        (B, n) int64, indices of the items, best first; -1 fills the row of a user whose history holds all
        others.
    scores : ndarray
        (B, n) float32; -inf where `items` is -1.
    known_items : ndarray
        (B,) int64, number of items in the history that the model knows. With one, the history has no
        transition and the model uses the item only; with none, the user gets the most popular items.
    unknown_items : tuple of tuple of str
        For each user, the ids in the history that the model does not know, in order.
    """

    item_ids: pl.Series
    items: np.ndarray
    scores: np.ndarray
    known_items: np.ndarray
    unknown_items: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, user: int) -> list[Recommendation]:
        """Items of one user, best first.

        Parameters
        ----------
        user : int
            Index of the user.

        Returns
        -------
        list of Recommendation
            At most n.

        Raises
        ------
        IndexError
            If there is no such user.
        """
        return [
            Recommendation(self.item_ids[int(item)], float(score))
            for item, score in zip(self.items[user], self.scores[user], strict=True)
            if item >= 0
        ]

    def basis(self, user: int) -> Basis:
        """Whether one user's items come from the history or from popularity.

        Parameters
        ----------
        user : int
            Index of the user.

        Returns
        -------
        {"history", "popularity"}
            ``"popularity"`` if the model knows no item of the history.

        Raises
        ------
        IndexError
            If there is no such user.
        """
        return "history" if self.known_items[user] else "popularity"

    def frame(self, user_ids: pl.Series | None = None) -> pl.DataFrame:
        """Convert the recommendations to a table.

        Parameters
        ----------
        user_ids : polars.Series, optional
            (B,) raw user ids; 0, 1, … by default.

        Returns
        -------
        polars.DataFrame
            ``user_id``, ``rank`` (from 1), ``item_id``, ``score``, ``basis`` (``"history"`` or
            ``"popularity"``), ``unknown_items`` (how many items of the history the model does not know);
            users in order, best items first.
        """
        users, columns = np.nonzero(self.items >= 0)
        ids = pl.Series("user_id", np.arange(len(self))) if user_ids is None else user_ids.alias("user_id")
        unknown = np.array([len(items) for items in self.unknown_items], dtype=np.int64)
        basis = pl.Series(["popularity", "history"], dtype=pl.String)
        return pl.DataFrame(
            {
                "user_id": ids[users],
                "rank": columns + 1,
                "item_id": self.item_ids[self.items[users, columns]],
                "score": self.scores[users, columns],
                "basis": basis[(self.known_items[users] > 0).astype(np.int64)],
                "unknown_items": unknown[users],
            }
        )


def recommend(
    run: Run,
    histories: Sequence[Sequence[Any]] | Interactions,
    *,
    top: int = 10,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
) -> Recommendations:
    """Recommend items to new users.

    The model is not trained further: it adapts to each history as in the evaluation. A user's items do not
    depend on the other users in the call. Items of the history are never recommended; the list of a user who
    has had all others is shorter, and empty after every item.

    Parameters
    ----------
    run : Run
        A fitted system.
    histories : sequence of sequences, or Interactions
        Raw item ids of each user, oldest first; of interactions, each user's rows. Ids of any type may be
        given as text. The model sees the last 50 known items. Unknown ids are ignored and reported.
    top : int
        Items per user.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        Format that the model's item vectors are rounded to. For repeated calls, make the table once with
        ``metatl.ItemTable.of(run.model, "int8")``.
    num_threads : int, optional
        Threads of the kernels; by default `METATL_NUM_THREADS`, or one per available core.

    Returns
    -------
    Recommendations
        One row per history.

    Raises
    ------
    InvalidArgumentError
        If `run` is not a `Run`, `top` is not a whole number of at least 1, the histories are not lists of
        ids, or the model has no item vectors to round.
    NotANumberError
        If a score is NaN.
    """
    refuse_forked_child()
    check_type("run", run, Run, "metatl.Run; metatl.load_run loads one from a directory")
    top = whole_number("top", top, 1)
    known, unknown = _look_up(run.item_ids, *_raw_items(histories))
    top = min(top, len(run.item_ids))
    items = np.full((len(known), top), -1, dtype=np.int64)
    scores = np.full((len(known), top), -np.inf, dtype=np.float32)
    counts = known.lengths
    users = np.flatnonzero((counts > 0) & ~_has_all(known, len(run.item_ids)))
    if len(users):
        rows = known.select(users)
        # The default seed: these support negatives also served the validation and serve evaluations.
        items[users], scores[users] = top_n(
            run.model, rows.latest(MAX_HISTORY), top, rows, item_table=item_table, num_threads=num_threads
        )
    popular = np.argsort(-run.item_counts, kind="stable")[:top]
    items[counts == 0], scores[counts == 0] = popular, run.item_counts[popular]
    return Recommendations(run.item_ids, items, scores, counts, unknown)


def _has_all(histories: Histories, num_items: int) -> np.ndarray:
    """Tell which histories hold every item: their lists are empty, and no negative is left for them."""
    has_all = histories.lengths >= num_items
    rows = histories.select(np.flatnonzero(has_all))
    row_of = np.repeat(np.arange(len(rows)), rows.lengths)
    has_all[has_all] = count_distinct(row_of, rows.items, len(rows), num_items) == num_items
    return has_all


def _raw_items(histories: Sequence[Sequence[Any]] | Interactions) -> tuple[np.ndarray, pl.Series]:
    """Concatenate the raw ids of all histories as text; return the users' boundaries (B + 1,) and the ids."""
    if isinstance(histories, Interactions):
        return histories.indptr, histories.item_ids.cast(pl.String).gather(histories.items)
    rows = _as_list("histories", histories)
    items = [_as_list(f"histories[{row}]", history) for row, history in enumerate(rows)]
    indptr = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum([len(history) for history in items], out=indptr[1:])
    texts = [_text(row, item) for row, history in enumerate(items) for item in history]
    return indptr, pl.Series(texts, dtype=pl.String)


def _text(row: int, item: Any) -> str:
    try:
        return id_text(item)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"histories[{row}]: {error}") from None


def _as_list(argument: str, values: Any) -> list[Any]:
    # These are iterable too: strings over letters, tables over columns, sets in no order.
    refused = (str, bytes, Mapping, pl.DataFrame, set, frozenset)
    refuse_masked(argument, values)
    if isinstance(values, refused) or not isinstance(values, Iterable):
        raise ArgumentTypeError(
            f"{argument}: found {type(values).__name__}, expected a list of item ids for each user, "
            "oldest first"
        )
    return list(values)


def _look_up(
    item_ids: pl.Series, indptr: np.ndarray, texts: pl.Series
) -> tuple[Histories, tuple[tuple[str, ...], ...]]:
    """Split the histories' ids into known items, as indices in `item_ids`, and unknown ids, as text."""
    items = find_ids(item_ids, texts)
    is_known = items >= 0
    num_known_before = np.concatenate([[0], np.cumsum(is_known)])
    known = Histories(num_known_before[indptr], items[is_known])
    unknown: list[tuple[str, ...]] = [()] * (len(indptr) - 1)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    for row, text in zip(rows[~is_known], texts.filter(pl.Series(~is_known)), strict=True):
        unknown[row] = (*unknown[row], text)
    return known, tuple(unknown)


def find_names(run: Run, item_ids: pl.Series) -> pl.Series | None:
    """Look up the names of items; only the bundled wines have names.

    Parameters
    ----------
    run : Run
        A fitted system.
    item_ids : polars.Series
        (N,) raw ids.

    Returns
    -------
    polars.Series or None
        (N,) String, null for an item without a name; None if the data has no names.
    """
    from metatl import datasets

    if run.record.data != "wines":
        return None
    names = {str(item): name for item, name in datasets.item_names().items()}
    return pl.Series("item_name", [names.get(str(item)) for item in item_ids], dtype=pl.String)
