"""The kernels, compiled from `rust/`.

Arrays must have exactly the dtype and the dimensions given here and be C-contiguous; anything else is an
`InvalidArgumentError` that names the argument. Ids are int64, scores float32. Results are a function of the
arguments alone: they do not depend on `num_threads`, which is `METATL_NUM_THREADS`, else what the operating
system grants, by default. A kernel that works for long leaves the interpreter to other threads and answers
Ctrl-C. Optional numbers are 0 by default.
"""

from types import TracebackType
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, disjoint_base

__all__ = [
    "BatchPrefetcher",
    "BatchSampler",
    "EpisodeSampler",
    "Interactions",
    "ItemWalks",
    "PanelTable",
    "SequenceSampler",
    "available_threads",
    "bootstrap_group_means",
    "bootstrap_means",
    "encode_transitions",
    "group_by_user",
    "look_up_ids",
    "random_order",
    "rank_candidates",
    "rank_catalogue",
    "rank_score_matrix",
    "rank_scores",
    "ranks",
    "round_to_bf16",
    "round_to_int8",
    "sample_candidates",
    "sample_support_negatives",
    "sign_flip_counts",
    "tabulate_transitions",
    "top_n",
    "top_n_of",
    "top_n_scores",
    "user_metrics",
]

_Ids: TypeAlias = npt.NDArray[np.int64]
_Weights: TypeAlias = npt.NDArray[np.float64]
_Rows: TypeAlias = npt.NDArray[np.float32]
# (I, d) float32; the bits of bfloat16; whole numbers (I, d) and their rows' scales (I,)
_ItemTable: TypeAlias = _Rows | npt.NDArray[np.uint16] | tuple[npt.NDArray[np.int8], _Rows] | PanelTable
_Metrics: TypeAlias = npt.NDArray[np.float64]
_Counts: TypeAlias = npt.NDArray[np.int64]
_Similarity: TypeAlias = Literal["dot", "l2", "squared_l2"]
_TieRule: TypeAlias = Literal["worst", "mean", "best"]
# offsets (B + 1,), items (N,), rows (N, d): item vectors that hold for one query alone
_Overrides: TypeAlias = tuple[_Ids, _Ids, _Rows]

# Weights of the head and the tail, bias, and the two factors of the skip.
_Learner: TypeAlias = tuple[_Rows, _Rows, _Rows, tuple[_Rows, _Rows] | None]

# Steps, rates, inverse temperature, mean over pairs, margin; common, own and drawn own negatives.
_InnerLoop: TypeAlias = tuple[int, _Rows, float, bool, float | None, int, int, int]
# (B,) each: negatives scored above the target, negatives scored the same
_Comparisons: TypeAlias = tuple[_Ids, _Ids]
# users (B,), items (B, pairs + 1), negatives (B, pairs, negatives), shared negatives (shared_negatives,)
_BatchArrays: TypeAlias = tuple[_Ids, _Ids, _Ids, _Ids]

@final
class Interactions:
    def __new__(
        cls, indptr: _Ids, items: _Ids, num_items: int, *, num_threads: int | None = None
    ) -> Interactions: ...
    @property
    def num_users(self) -> int: ...
    @property
    def num_items(self) -> int: ...
    @property
    def num_interactions(self) -> int: ...

def group_by_user(
    users: _Ids,
    items: _Ids,
    timestamps: _Ids,
    num_users: int,
    *,
    keep_repeats: bool,
    num_threads: int | None = None,
) -> tuple[_Ids, _Ids, _Ids]: ...
def tabulate_transitions(
    item_table: _Rows, learner: _Learner, *, num_threads: int | None = None
) -> tuple[_Rows, _Rows]: ...
def encode_transitions(
    indptr: _Ids,
    items: _Ids,
    item_table: _Rows,
    learner: _Learner,
    inner: _InnerLoop,
    mean_transition: _Rows,
    *,
    terms: tuple[_Rows, _Rows] | None,
    item_bias: _Rows | None,
    similarity: _Similarity,
    seed: int,
    num_threads: int | None = None,
) -> _Rows: ...
def sample_support_negatives(
    histories: _Ids, count: int, num_items: int, *, seed: int, num_threads: int | None = None
) -> _Ids: ...
def sample_candidates(
    interactions: Interactions,
    users: _Ids,
    targets: _Ids,
    count: int,
    *,
    seed: int,
    epoch: int | None = None,
    weights: _Weights | None = None,
    exclude_target: bool = True,
    num_threads: int | None = None,
) -> _Ids: ...
def look_up_ids(
    lists: list[Any], index: dict[int, int] | dict[str, int], texts: bool
) -> tuple[_Ids, _Ids] | None: ...
def random_order(count: int, *, seed: int, epoch: int | None = None) -> _Ids: ...

@disjoint_base
class BatchSampler:
    def sample(self, step: int, batch_size: int) -> _BatchArrays: ...
    def prefetch(self, start_step: int, batch_size: int, depth: int | None = None) -> BatchPrefetcher: ...

@final
class EpisodeSampler(BatchSampler):
    def __new__(
        cls,
        interactions: Interactions,
        *,
        k: int,
        negatives: int,
        shared_negatives: int | None = None,
        window_share: float | None = None,
        released_windows: bool = False,
        shuffle_share: float | None = None,
        seed: int,
        num_threads: int | None = None,
    ) -> EpisodeSampler: ...

@final
class SequenceSampler(BatchSampler):
    def __new__(
        cls,
        interactions: Interactions,
        *,
        length: int,
        negatives: int,
        shared_negatives: int | None = None,
        shortest: int | None = None,
        draw: Literal["user", "row"] | None = None,
        shuffle_share: float | None = None,
        weights: _Weights | None = None,
        seed: int,
        num_threads: int | None = None,
    ) -> SequenceSampler: ...

@final
class BatchPrefetcher:
    def __iter__(self) -> BatchPrefetcher: ...
    def __next__(self) -> _BatchArrays: ...
    def close(self) -> None: ...
    def __enter__(self) -> BatchPrefetcher: ...
    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

def rank_candidates(
    queries: _Rows,
    item_table: _ItemTable,
    candidates: _Ids,
    *,
    item_bias: _Rows | None,
    similarity: _Similarity,
    overrides: _Overrides | None,
    num_threads: int | None = None,
) -> _Comparisons: ...
def rank_catalogue(
    queries: _Rows,
    item_table: _ItemTable,
    targets: _Ids,
    excluded_indptr: _Ids,
    excluded_items: _Ids,
    *,
    item_bias: _Rows | None,
    similarity: _Similarity,
    overrides: _Overrides | None,
    num_threads: int | None = None,
) -> _Comparisons: ...
def top_n(
    queries: _Rows,
    item_table: _ItemTable,
    n: int,
    excluded_indptr: _Ids,
    excluded_items: _Ids,
    *,
    item_bias: _Rows | None,
    similarity: _Similarity,
    overrides: _Overrides | None,
    allowed: npt.NDArray[np.uint8] | None = None,
    num_threads: int | None = None,
) -> tuple[_Ids, _Rows]: ...
def top_n_of(
    queries: _Rows,
    item_table: _ItemTable,
    n: int,
    candidates_indptr: _Ids,
    candidates: _Ids,
    excluded_indptr: _Ids,
    excluded_items: _Ids,
    *,
    item_bias: _Rows | None,
    similarity: _Similarity,
    overrides: _Overrides | None,
    num_threads: int | None = None,
) -> tuple[_Ids, _Rows]: ...

@final
class ItemWalks:
    def __new__(
        cls,
        indptr: _Ids,
        indices: _Ids,
        values: _Weights,
        *,
        recency: float,
        second_step: float,
        prior: _Weights,
        composed: bool,
        num_threads: int | None = None,
    ) -> Self: ...
    def score(self, indptr: _Ids, items: _Ids, *, num_threads: int | None = None) -> _Rows: ...

@final
class PanelTable:
    def __new__(cls, item_table: _ItemTable, *, num_threads: int | None = None) -> Self: ...

def round_to_bf16(item_table: _Rows, *, num_threads: int | None = None) -> npt.NDArray[np.uint16]: ...
def round_to_int8(
    item_table: _Rows, *, num_threads: int | None = None
) -> tuple[npt.NDArray[np.int8], _Rows]: ...
def rank_scores(scores: _Rows, *, num_threads: int | None = None) -> _Comparisons: ...
def rank_score_matrix(
    scores: _Rows,
    targets: _Ids,
    excluded_indptr: _Ids,
    excluded_items: _Ids,
    *,
    num_threads: int | None = None,
) -> _Comparisons: ...
def top_n_scores(
    scores: _Rows,
    n: int,
    excluded_indptr: _Ids,
    excluded_items: _Ids,
    *,
    allowed: npt.NDArray[np.uint8] | None = None,
    num_threads: int | None = None,
) -> tuple[_Ids, _Rows]: ...
def user_metrics(
    greater: _Ids, equal: _Ids, *, ties: _TieRule, cutoffs: _Ids, num_threads: int | None = None
) -> _Metrics: ...
def ranks(greater: _Ids, equal: _Ids, *, ties: _TieRule, num_threads: int | None = None) -> _Metrics: ...
def bootstrap_means(
    values: _Metrics, *, resamples: int, seed: int, num_threads: int | None = None
) -> _Metrics: ...
def bootstrap_group_means(
    values: _Metrics, counts: _Ids, *, resamples: int, seed: int, num_threads: int | None = None
) -> _Metrics: ...
def available_threads() -> int: ...
def sign_flip_counts(
    differences: _Metrics, *, resamples: int, seed: int, num_threads: int | None = None
) -> _Counts: ...
