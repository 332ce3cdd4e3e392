"""Training batches, drawn in Rust ahead of their use.

A batch is a pure function of (seed, step), so that a resumed training sees the batches it would have seen.
What the rows of a batch are, episodes or sequences, is up to the sampler.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from metatl._metatl import EpisodeSampler, SequenceSampler

    Sampler: TypeAlias = Union[EpisodeSampler, SequenceSampler]  # noqa: UP007


class Batch(NamedTuple):
    """A batch of B rows of up to P + 1 items.

    Attributes
    ----------
    users
        int64 (B,): the user of each row.
    items
        int64 (B, P + 1): items of the user in order; -1 where a row has none.
    negatives
        int64 (B, P, N): items that the user never interacted with, N for each pair
        items[:, j] -> items[:, j + 1].
    shared_negatives
        int64 (M,): items for the whole batch; they may coincide with a positive.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    negatives: NDArray[np.int64]
    shared_negatives: NDArray[np.int64]


@contextmanager
def alternate(samplers: Sequence[Sampler], first_step: int, batch_size: int) -> Iterator[Iterator[Batch]]:
    """Draw batches from several samplers in turn, ahead of time in detached threads.

    Parameters
    ----------
    samplers
        n samplers; step s takes batch s // n of sampler s mod n.
    first_step
        The step to begin with.
    batch_size
        Rows per batch.
    """
    count = len(samplers)
    with ExitStack() as stack:
        # Sampler i has served the steps below first_step that leave the remainder i.
        served = [(first_step + count - 1 - index) // count for index in range(count)]
        batches = [
            stack.enter_context(sampler.prefetch(start, batch_size))
            for sampler, start in zip(samplers, served, strict=True)
        ]

        def in_turn() -> Iterator[Batch]:
            step = first_step
            while True:
                yield Batch(*next(batches[step % count]))
                step += 1

        yield in_turn()
