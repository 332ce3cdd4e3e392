"""Approximate retrieval in large catalogues: faiss proposes items, and our kernel ranks them exactly.

The items are divided into cells, and a query is compared with the items of the nearest cells only, in 8 bits
a number (an inverted file, IVF, with SQ8). One more coordinate makes the item bias b part of the geometry:

    -‖q - e‖² + b = max b - ‖[q, 0] - [e, √(max b - b)]‖²   and   q·e + b = [q, 1]·[e, b].

Johnson, Douze, Jégou, *Billion-scale similarity search with GPUs*, 2019; Jégou, Douze, Schmid, *Product
quantization for nearest neighbor search*, 2011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metatl.data.histories import Histories
from metatl.exceptions import ConfigError, InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.ranking.encoders import ArrayEncoder

SMALLEST_CATALOGUE = 300_000
"""Items from which on approximate retrieval is offered: below, the exact kernel is fast enough."""

TARGET_RECALL = 0.96
"""Recall@10 beside the exact lists, on sampled histories, that decides how many cells a query visits."""

PROPOSED = 100
"""Items that are proposed for a list of 10; for longer lists, as many more."""

_TOP = 10
_SAMPLED_USERS = 256
_SAMPLED_ITEMS = 3
_TRAINING_POINTS = 48  # for each cell
_TRAINING_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """An index of the item vectors.

    Attributes
    ----------
    index : faiss.Index
        The index.
    constant : float
        The last coordinate of each query.
    cells : int
        How many cells a query visits.
    recall : float
        Share of the exact best 10 items that it proposes, on sampled histories.
    """

    index: Any
    constant: float
    cells: int
    recall: float

    def propose(self, queries: NDArray[np.float32], counts: NDArray[np.int64]) -> Histories:
        """Propose items.

        Parameters
        ----------
        queries : ndarray
            (B, d) float32.
        counts : ndarray
            (B,) int64, most items of each query.

        Returns
        -------
        Histories
            B rows of distinct items, nearest first. A query's items do not depend on the others.
        """
        if len(queries) == 0:
            return Histories(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
        most = min(int(counts.max()), self.index.ntotal)
        _, items = self.index.search(_append(queries, self.constant), most)
        # Where the visited cells hold fewer items, -1 fills the row.
        is_proposed = (items >= 0) & (np.arange(most) < counts[:, None])
        return Histories(np.concatenate([[0], np.cumsum(is_proposed.sum(axis=1))]), items[is_proposed])


def build_index(encoder: ArrayEncoder, item_counts: NDArray[np.int64]) -> ApproximateIndex:
    """Build the index of a catalogue, and choose how many cells a query visits.

    It raises their number by a fourth until sampled histories reach `TARGET_RECALL`.

    Parameters
    ----------
    encoder : ArrayEncoder
        Encodes histories, and ranks exactly.
    item_counts : ndarray
        (I,) int64, training interactions per item: histories are sampled in proportion to them.

    Returns
    -------
    ApproximateIndex
        The index.

    Raises
    ------
    ConfigError
        If the extra `ann` is not installed.
    InvalidArgumentError
        If the catalogue is small, or the similarity has no such geometry.
    """
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            "approximate: it needs a package that is not installed; install it with "
            '`pip install "metatl[ann]"`'
        ) from None
    arrays = encoder.arrays
    if encoder.num_items < SMALLEST_CATALOGUE:
        raise InvalidArgumentError(
            f"approximate: found a catalogue of {encoder.num_items:,} items, expected at least "
            f"{SMALLEST_CATALOGUE:,}: exact lists are fast enough there"
        )
    bias = arrays.item_bias
    if arrays.similarity == "l2" and bias is not None:
        raise InvalidArgumentError(
            "approximate: found the distance ‖q - e‖ with an item bias, which is no distance of other vectors"
        )
    metric = faiss.METRIC_INNER_PRODUCT if arrays.similarity == "dot" else faiss.METRIC_L2
    cells = 2 ** round(math.log2(4 * math.sqrt(encoder.num_items)))
    vectors, constant = _with_bias(arrays.item_table, bias, is_product=arrays.similarity == "dot")
    index: Any = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQ8", metric)
    index.cp.niter, index.cp.max_points_per_centroid = _TRAINING_ROUNDS, _TRAINING_POINTS
    index.cp.min_points_per_centroid = 1  # below it, faiss prints a warning
    generator = np.random.default_rng(encoder.seed)
    sample = generator.choice(len(vectors), min(len(vectors), cells * _TRAINING_POINTS), replace=False)
    index.train(vectors[np.sort(sample)])
    index.add(vectors)
    del vectors
    chance = np.maximum(item_counts, 1) / np.maximum(item_counts, 1).sum()
    sampled = generator.choice(encoder.num_items, size=(_SAMPLED_USERS, _SAMPLED_ITEMS), p=chance)
    block = encoder.encode(Histories.from_matrix(sampled))
    nothing = Histories(np.zeros(_SAMPLED_USERS + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    exact = block.top_n(_TOP, nothing).items
    visited, recall = 1, 0.0
    while True:
        index.nprobe = visited
        proposed = ApproximateIndex(index, constant, visited, recall).propose(
            block.queries, np.full(_SAMPLED_USERS, PROPOSED)
        )
        recall = _recall(exact, proposed)
        if recall >= TARGET_RECALL or visited >= cells:
            return ApproximateIndex(index, constant, visited, recall)
        visited += max(1, visited // 4)


def _recall(exact: NDArray[np.int64], proposed: Histories) -> float:
    of_users = np.split(proposed.items, proposed.indptr[1:-1])
    return float(np.mean([np.isin(row, items).mean() for row, items in zip(exact, of_users, strict=True)]))


def _with_bias(
    item_table: NDArray[np.float32], bias: NDArray[np.float32] | None, *, is_product: bool
) -> tuple[NDArray[np.float32], float]:
    if bias is None:
        return _append(item_table, 0.0), 0.0
    if is_product:
        return _append(item_table, bias), 1.0
    return _append(item_table, np.sqrt(bias.max() - bias)), 0.0


def _append(rows: NDArray[np.float32], last: NDArray[np.float32] | float) -> NDArray[np.float32]:
    extended = np.empty((len(rows), rows.shape[1] + 1), dtype=np.float32)
    extended[:, :-1], extended[:, -1] = rows, last
    return extended
