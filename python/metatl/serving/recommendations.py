"""Recommended items: what a recommender answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from metatl.runs.run_directory import RunRecord

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


def find_names(record: RunRecord, item_ids: pl.Series) -> pl.Series | None:
    """Look up the names of items; only the bundled wines have names.

    Parameters
    ----------
    record : RunRecord
        The settings of a run.
    item_ids : polars.Series
        (N,) raw ids.

    Returns
    -------
    polars.Series or None
        (N,) String, null for an item without a name; None if the data has no names.
    """
    from metatl import datasets

    if record.data != "wines":
        return None
    names = {str(item): name for item, name in datasets.item_names().items()}
    return pl.Series("item_name", [names.get(str(item)) for item in item_ids], dtype=pl.String)
