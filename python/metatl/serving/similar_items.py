"""Similar items: the cosine of item vectors, or the scores after one item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metatl import _metatl
from metatl.data.histories import Histories
from metatl.ranking.blocks import TopItems
from metatl.ranking.encoders import ArrayEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.serving.served_run import ServedRun


def similar_items(served: ServedRun, items: NDArray[np.int64], top: int) -> TopItems:
    """Find the most similar other items.

    Parameters
    ----------
    served : ServedRun
        The run.
    items : ndarray
        (N,) int64, indices of items.
    top : int
        Items per row.

    Returns
    -------
    TopItems
        (N, top): the cosines of the item vectors if the system is served without torch, or what it scores
        after the one item.
    """
    own = Histories.from_matrix(items[:, None])
    encoder = served.encoder
    if isinstance(encoder, ArrayEncoder):
        directions = served.directions
        best = _metatl.top_n(
            np.ascontiguousarray(directions[items]),
            directions,
            top,
            own.indptr,
            own.items,
            item_bias=None,
            similarity="dot",
            overrides=None,
            num_threads=encoder.num_threads,
        )
        return TopItems(*best)
    answer = TopItems(np.empty((len(items), top), np.int64), np.empty((len(items), top), np.float32))
    for rows, block in encoder.blocks(own):
        answer.items[rows], answer.scores[rows] = block.top_n(top, own.select(rows))
    return answer
