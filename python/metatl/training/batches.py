"""Training batches, drawn in Rust ahead of their use.

A batch is a pure function of (seed, step), so that a resumed training sees the batches it would have seen.
Its rows are episodes or sequences.

Episodes are the tasks that MetaTL, MeLU and MetaCF learn from: K + 1 interactions of one training user in
time order, i1 … iK+1. The support is the K - 1 transitions i1 → i2 … iK-1 → iK, the query is iK → iK+1 (Sec.
3.2 of Wang et al. 2021). Sequences are the stretches of users' rows that the other systems train on.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from metatl._metatl import EpisodeSampler, SequenceSampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions
    from metatl.models import Batches
    from metatl.models.contract import EpisodeSettings, SequenceSettings

Sampler: TypeAlias = EpisodeSampler | SequenceSampler


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


def make_sampler(
    batches: Batches,
    train: Interactions,
    config: Any,
    *,
    k: int,
    seed: int,
    item_counts: NDArray[np.int64] | None = None,
) -> Sampler:
    """Build the sampler of what a system is trained on; see `sequence_sampler` for `item_counts`."""
    if batches == "episodes":
        return episode_sampler(train, config.episodes, k=k, seed=seed)
    return sequence_sampler(train, config.sequences, seed=seed, item_counts=item_counts)


def episode_sampler(train: Interactions, settings: EpisodeSettings, *, k: int, seed: int) -> EpisodeSampler:
    """Build the sampler that a model asks for.

    Parameters
    ----------
    train
        The training users' interactions.
    settings
        Which tasks.
    k
        Interactions of a user that the model sees, K.
    seed
        Seed of the tasks.
    """
    return EpisodeSampler(train.index, k=k, seed=seed, **settings._asdict())


def sequence_sampler(
    train: Interactions,
    settings: SequenceSettings,
    *,
    seed: int,
    item_counts: NDArray[np.int64] | None = None,
) -> SequenceSampler:
    """Build the sampler that a model asks for.

    Parameters
    ----------
    train
        The training users' interactions, or a part of them.
    settings
        What a sequence is, and which negatives it comes with.
    seed
        Seed of the sequences.
    item_counts : ndarray, optional
        (I,) int64, training interactions of each item, for negatives by popularity; those in `train` by
        default.
    """
    weights = None
    if settings.popularity_exponent > 0:
        counts = train.item_counts if item_counts is None else item_counts
        weights = counts.astype(np.float64) ** settings.popularity_exponent
    return SequenceSampler(
        train.index,
        length=settings.length,
        shortest=settings.shortest,
        draw=settings.draw,
        negatives=settings.negatives,
        shared_negatives=settings.shared_negatives,
        shuffle_share=settings.shuffle_share,
        weights=weights,
        seed=seed,
    )


def part_seeds(seed: int, count: int) -> list[int]:
    """Give each of the parts that take turns a seed of its own.

    A sampler numbers its batches from 0. With one seed for all, `count` steps in a row would meet the same
    negatives, and users at the same places of their parts.
    """
    if count == 1:
        return [seed]
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count, np.uint64)]


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
