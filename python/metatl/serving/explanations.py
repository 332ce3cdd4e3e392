"""Explanations: which items and transitions of a history speak for an item, in shares of its score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from metatl.data.histories import Histories
from metatl.models.contract import ShareOfScore
from metatl.ranking.encoders import ArrayEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from metatl.serving.served_run import ServedRun


class ItemShare(NamedTuple):
    """What one item of the history adds to the score."""

    item_id: Any
    share: float


class TransitionShare(NamedTuple):
    """What one transition, from an item of the history to the next, adds to the score."""

    from_item_id: Any
    to_item_id: Any
    share: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The parts of a score. They add up to it.

    Attributes
    ----------
    item_id : object
        Raw id of the item.
    score : float
        Its score.
    items : tuple of ItemShare
        For each known item of the history, oldest first: what it adds.
    transitions : tuple of TransitionShare
        For each pair of neighbouring items, what their transition adds beyond the items themselves; empty
        for systems without transitions.
    adaptation : float
        What the inner step adds; 0 for systems without one.
    base : float
        The rest: what the item has for an average history, such as its popularity.
    """

    item_id: Any
    score: float
    items: tuple[ItemShare, ...]
    transitions: tuple[TransitionShare, ...]
    adaptation: float
    base: float

    def frame(self) -> pl.DataFrame:
        """Convert the explanation to a table.

        Returns
        -------
        polars.DataFrame
            ``part`` (``"item"``, ``"transition"``, ``"adaptation"`` or ``"base"``), ``item_id``,
            ``to_item_id`` (null but for transitions) and ``share``.
        """
        rows: list[tuple[str, str | None, str | None, float]]
        rows = [("item", str(one.item_id), None, one.share) for one in self.items]
        rows += [
            ("transition", str(one.from_item_id), str(one.to_item_id), one.share) for one in self.transitions
        ]
        rows += [("adaptation", None, None, self.adaptation), ("base", None, None, self.base)]
        schema = {"part": pl.String, "item_id": pl.String, "to_item_id": pl.String, "share": pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row")


def explain(served: ServedRun, history: NDArray[np.int64], item: int) -> Explanation:
    """Explain the score of an item.

    Parameters
    ----------
    served : ServedRun
        The run.
    history : ndarray
        (L,) int64, at least one item, oldest first.
    item : int
        Index of the item.

    Returns
    -------
    Explanation
        Exact parts where the score is a sum over the history; otherwise each item's share is what the score
        loses without it, and the base is the rest.
    """
    score = float(scores_of(served, Histories.from_matrix(history[None]), [item])[0, 0])
    parts = None
    if isinstance(served.encoder, ArrayEncoder):
        parts = served.encoder.arrays.explain(history, item, seed=served.encoder.seed)
    if parts is None:
        parts = _without_each(served, history, item, score)
    ids = served.item_ids
    transitions = zip(history[:-1].tolist(), history[1:].tolist(), parts.transitions, strict=False)
    total = float(parts.items.sum() + parts.transitions.sum() + parts.adaptation)
    return Explanation(
        ids[item],
        score,
        tuple(
            ItemShare(ids[one], float(share))
            for one, share in zip(history.tolist(), parts.items, strict=True)
        ),
        tuple(TransitionShare(ids[head], ids[tail], float(share)) for head, tail, share in transitions),
        float(parts.adaptation),
        score - total,
    )


def scores_of(served: ServedRun, histories: Histories, items: Sequence[int]) -> NDArray[np.float32]:
    """Score some items.

    Parameters
    ----------
    served : ServedRun
        The run.
    histories : Histories
        B rows of at least one item.
    items : sequence of int
        (N,) indices of items.

    Returns
    -------
    ndarray
        (B, N) float32, with the same bits as in the lists.
    """
    wanted, column_of = np.unique(np.asarray(items, dtype=np.int64), return_inverse=True)
    scores = np.empty((len(histories), len(wanted)), dtype=np.float32)
    for rows, block in served.encoder.blocks(histories):
        users = len(histories.select(rows))
        nothing = Histories(np.zeros(users + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
        best = block.top_n_of(len(wanted), Histories.from_matrix(np.tile(wanted, (users, 1))), nothing)
        of_rows = np.empty((users, len(wanted)), dtype=np.float32)
        np.put_along_axis(of_rows, np.searchsorted(wanted, best.items), best.scores, axis=1)
        scores[rows] = of_rows
    answer: NDArray[np.float32] = scores[:, column_of]
    return answer


def _without_each(served: ServedRun, history: NDArray[np.int64], item: int, score: float) -> ShareOfScore:
    """Compare the score with that of the history without each item; one item alone has no such comparison."""
    losses = np.zeros(len(history))
    if len(history) > 1:
        rows = np.stack([np.delete(history, position) for position in range(len(history))])
        losses = score - scores_of(served, Histories.from_matrix(rows), [item])[:, 0].astype(np.float64)
    return ShareOfScore(losses, np.zeros(0), 0.0)
