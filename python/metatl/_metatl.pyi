"""The kernels, compiled from `rust/`.

Arrays must have exactly the dtype and the dimensions given here and be C-contiguous; anything else is an
`InvalidArgumentError` that names the argument. Ids are int64, scores float32. Results are a function of the
arguments alone: they do not depend on `num_threads`, which is `METATL_NUM_THREADS`, else what the operating
system grants, by default. A kernel that works for long leaves the interpreter to other threads and answers
Ctrl-C. Optional numbers are 0 by default.
"""

from types import TracebackType
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

_Ids: TypeAlias = npt.NDArray[np.int64]
_Weights: TypeAlias = npt.NDArray[np.float64]
# users (B,), items (B, k + 1), negatives (B, k, negatives), shared negatives (shared_negatives,)
_EpisodeArrays: TypeAlias = tuple[_Ids, _Ids, _Ids, _Ids]

class MetatlError(Exception): ...
class InvalidArgumentError(MetatlError): ...
class NoNegativeError(MetatlError): ...
class NotANumberError(MetatlError): ...
class ForkError(MetatlError): ...

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

def sample_negatives(
    interactions: Interactions,
    users: _Ids,
    count: int,
    *,
    seed: int,
    epoch: int | None = None,
    weights: _Weights | None = None,
    num_threads: int | None = None,
) -> _Ids: ...
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
def random_order(count: int, *, seed: int, epoch: int | None = None) -> _Ids: ...

@final
class EpisodeSampler:
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
    def sample(self, step: int, batch_size: int) -> _EpisodeArrays: ...
    def prefetch(self, start_step: int, batch_size: int, depth: int | None = None) -> EpisodePrefetcher: ...

@final
class EpisodePrefetcher:
    def __iter__(self) -> EpisodePrefetcher: ...
    def __next__(self) -> _EpisodeArrays: ...
    def close(self) -> None: ...
    def __enter__(self) -> EpisodePrefetcher: ...
    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
