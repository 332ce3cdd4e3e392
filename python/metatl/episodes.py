"""Episodes: the tasks that MetaTL learns from.

A task is K+1 interactions of one training user in time order: (i_1 ... i_K, i_K+1). Its support is
the K-1 transitions i_1 -> i_2 ... i_K-1 -> i_K, its query the transition i_K -> i_K+1 (Sec. 3.2 of
Wang et al. 2021). Tasks are drawn in Rust; a batch is a pure function of (seed, step), so that a
resumed training sees the tasks it would have seen.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from metatl._metatl import EpisodeSampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from metatl.interactions import Interactions
    from metatl.models.metatl import MetaTLConfig

__all__ = ["EpisodeBatch", "EpisodeSampler", "alternate", "episode_sampler"]


class EpisodeBatch(NamedTuple):
    """A meta-batch of B tasks.

    Attributes
    ----------
    users
        int64 (B,): the user of each task.
    items
        int64 (B, K+1): the support sequence, then the query's target; -1 where a task has padding.
    negatives
        int64 (B, K, N): items that the user never interacted with, N for each pair
        items[:, j] -> items[:, j+1]; the last pair is the query.
    shared_negatives
        int64 (M,): uniform items for the whole batch; they may coincide with a positive.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    negatives: NDArray[np.int64]
    shared_negatives: NDArray[np.int64]


def episode_sampler(train: Interactions, config: MetaTLConfig, *, k: int, seed: int) -> EpisodeSampler:
    """Build the sampler that a config asks for.

    Parameters
    ----------
    train
        The training users' interactions.
    config
        Its `negatives`, `shared_negatives`, `window_share`, `released_windows` and `shuffle_share`.
    k
        Interactions of a user that the model sees, K.
    seed
        Seed of the tasks.
    """
    return EpisodeSampler(
        train.index,
        k=k,
        negatives=config.negatives,
        shared_negatives=config.shared_negatives,
        window_share=config.window_share,
        released_windows=config.released_windows,
        shuffle_share=config.shuffle_share,
        seed=seed,
    )


@contextmanager
def alternate(
    samplers: Sequence[EpisodeSampler], first_step: int, batch_size: int
) -> Iterator[Iterator[EpisodeBatch]]:
    """Draw meta-batches from several samplers in turn, ahead of time in detached threads.

    Parameters
    ----------
    samplers
        n samplers; step s takes batch s // n of sampler s mod n.
    first_step
        The step to begin with.
    batch_size
        Tasks per batch.
    """
    count = len(samplers)
    with ExitStack() as stack:
        # Sampler i has served the steps below first_step that leave the remainder i.
        served = [(first_step + count - 1 - index) // count for index in range(count)]
        batches = [
            stack.enter_context(sampler.prefetch(start, batch_size))
            for sampler, start in zip(samplers, served, strict=True)
        ]

        def in_turn() -> Iterator[EpisodeBatch]:
            step = first_step
            while True:
                yield EpisodeBatch(*next(batches[step % count]))
                step += 1

        yield in_turn()
