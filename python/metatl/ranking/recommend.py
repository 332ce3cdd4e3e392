"""Recommend items to users whom a model has never seen, from the raw ids of what they did so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from metatl.common.arguments import check_type, whole_number
from metatl.data.histories import Histories
from metatl.data.interactions import Interactions
from metatl.exceptions import ArgumentTypeError
from metatl.ranking.rank import top_n
from metatl.runs.run_directory import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.models.contract import Model
    from metatl.ranking.item_tables import ItemFormat, ItemTable

MAX_HISTORY = 50
"""A user's answer depends on their last 50 known items; older ones are only kept out of the answer."""

Basis = Literal["history", "popularity"]


@dataclass(frozen=True)
class Recommendation:
    """A recommended item.

    Attributes
    ----------
    item_id : object
        Raw item id.
    score : float
        The model's score, or the number of training interactions where the basis is popularity. Large is
        good.
    """

    item_id: Any
    score: float


@dataclass(frozen=True, eq=False)
class Recommendations:
    """What B users get.

    Attributes
    ----------
    item_ids : polars.Series
        (I,) raw item ids that `items` counts in.
    items : ndarray
        (B, n) int64, best first; -1 where a user has had everything else.
    scores : ndarray
        (B, n) float32.
    known_items : ndarray
        (B,) int64, how many items of the history the model knows. With one, no transition of the user has
        been seen and the model answers from the item alone; with none, the user gets the most popular items.
    unknown_items : tuple of tuple of str
        Per user, what the history held that the model does not know, in its order.
    """

    item_ids: pl.Series
    items: np.ndarray
    scores: np.ndarray
    known_items: np.ndarray
    unknown_items: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, user: int) -> list[Recommendation]:
        """Give one user's items, best first."""
        return [
            Recommendation(self.item_ids[int(item)], float(score))
            for item, score in zip(self.items[user], self.scores[user], strict=True)
            if item >= 0
        ]

    def basis(self, user: int) -> Basis:
        """Tell what one user's answer rests on."""
        return "history" if self.known_items[user] else "popularity"

    def frame(self, user_ids: pl.Series | None = None) -> pl.DataFrame:
        """Lay the answers out as a table.

        Parameters
        ----------
        user_ids : polars.Series, optional
            (B,) raw user ids; 0, 1, … by default.

        Returns
        -------
        polars.DataFrame
            ``user_id``, ``rank`` (from 1), ``item_id``, ``score``, ``basis`` (``"history"`` or
            ``"popularity"``), ``unknown_items`` (how many items of the history were not known); users in
            order, best items first.
        """
        users, places = np.nonzero(self.items >= 0)
        ids = pl.Series("user_id", np.arange(len(self))) if user_ids is None else user_ids.alias("user_id")
        unknown = np.array([len(items) for items in self.unknown_items], dtype=np.int64)
        basis = pl.Series(["popularity", "history"], dtype=pl.String)
        return pl.DataFrame(
            {
                "user_id": ids[users],
                "rank": places + 1,
                "item_id": self.item_ids[self.items[users, places]],
                "score": self.scores[users, places],
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

    No training takes place: the model adapts to each history as it does in the evaluation, and an answer does
    not depend on which other users are asked for. Nobody is recommended what is in their history.

    Parameters
    ----------
    run : Run
        A fitted system.
    histories : sequence of sequences, or Interactions
        Per user, raw item ids, oldest first; of interactions, each user's rows. Ids may be written as text
        whatever their type. The last 50 known items count. Unknown ones are left out and reported.
    top : int
        Items per user.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to. For one call after another make the table once:
        ``metatl.ItemTable.of(run.model, "int8")``.
    num_threads : int, optional
        Threads of the kernels.

    Returns
    -------
    Recommendations
        One answer per history.

    Raises
    ------
    InvalidArgumentError
        If `run` is the path of one, `top` is no whole number of at least 1, the histories are no lists of
        ids, or the model has no item vectors to round.
    NotANumberError
        If a score is not a number.
    """
    check_type("run", run, Run, "metatl.Run; metatl.load_run reads the one of a directory")
    top = whole_number("top", top, 1)
    known, unknown = _look_up(run.item_ids, *_raw_items(histories))
    top = min(top, len(run.item_ids))
    items = np.full((len(known), top), -1, dtype=np.int64)
    scores = np.full((len(known), top), -np.inf, dtype=np.float32)
    counts = known.lengths
    seen = np.flatnonzero(counts)
    if len(seen):
        rows = known.select(seen)
        items[seen], scores[seen] = _best(run.model, rows, top, item_table, num_threads)
    popular = np.argsort(-run.item_counts, kind="stable")[:top]
    items[counts == 0], scores[counts == 0] = popular, run.item_counts[popular]
    return Recommendations(run.item_ids, items, scores, counts, unknown)


def _best(
    model: Model, histories: Histories, top: int, item_table: ItemFormat | ItemTable, num_threads: int | None
) -> tuple[np.ndarray, np.ndarray]:
    # With the support negatives of the validation that chose the weights, and of an evaluation by default.
    return top_n(
        model,
        histories.latest(MAX_HISTORY),
        top,
        histories,
        item_table=item_table,
        num_threads=num_threads,
    )


def _raw_items(histories: Sequence[Sequence[Any]] | Interactions) -> tuple[np.ndarray, pl.Series]:
    """Put the histories' raw ids, as text, into one column with the boundaries of the users."""
    if isinstance(histories, Interactions):
        return histories.indptr, histories.item_ids.cast(pl.String).gather(histories.items)
    rows = _lists("histories", histories)
    items = [_lists(f"histories[{row}]", history) for row, history in enumerate(rows)]
    indptr = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum([len(history) for history in items], out=indptr[1:])
    return indptr, pl.Series([_text(item) for history in items for item in history], dtype=pl.String)


def _lists(argument: str, values: Any) -> list[Any]:
    # A text is a sequence too, of letters; a table is one of columns; a set has no order.
    unlike = (str, bytes, Mapping, pl.DataFrame, set, frozenset)
    if isinstance(values, unlike) or not isinstance(values, Iterable):
        raise ArgumentTypeError(
            f"{argument}: found {type(values).__name__}, expected a list of item ids for each user, "
            "oldest first"
        )
    return list(values)


def _text(item: Any) -> str:
    """Write an id as the data do: of arrays and tensors the number, and 17 for 17.0."""
    value = item.item() if hasattr(item, "item") else item
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _look_up(
    item_ids: pl.Series, indptr: np.ndarray, texts: pl.Series
) -> tuple[Histories, tuple[tuple[str, ...], ...]]:
    """Turn raw ids into places in `item_ids`, apart from those that are not there."""
    # As text, "17" finds 17 whatever type the ids have in the data and in the question.
    places = pl.DataFrame({"id": item_ids.cast(pl.String), "item": np.arange(len(item_ids), dtype=np.int64)})
    found = pl.DataFrame({"id": texts}).join(places, on="id", how="left", maintain_order="left")["item"]
    is_known = found.is_not_null().to_numpy()
    known_before = np.concatenate([[0], np.cumsum(is_known)])
    known = Histories(known_before[indptr], found.drop_nulls().to_numpy())
    unknown: list[tuple[str, ...]] = [()] * (len(indptr) - 1)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    for row, text in zip(rows[~is_known], texts.filter(pl.Series(~is_known)), strict=True):
        unknown[row] = (*unknown[row], text)
    return known, tuple(unknown)


def find_names(run: Run, item_ids: pl.Series) -> pl.Series | None:
    """Find the names of items, where the data has any: the bundled wines do.

    Parameters
    ----------
    run : Run
        A fitted system.
    item_ids : polars.Series
        (N,) raw ids.

    Returns
    -------
    polars.Series or None
        (N,) names, null where an item has none; None where the data has no names.
    """
    from metatl import datasets

    if run.record.data != "wines":
        return None
    names = {str(item): name for item, name in datasets.item_names().items()}
    return pl.Series("item_name", [names.get(str(item)) for item in item_ids], dtype=pl.String)
