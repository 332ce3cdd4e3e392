"""Training batches, sampled in Rust ahead of their use.

A batch is a pure function of (seed, step), so a resumed training sees the same batches as an uninterrupted
one. The rows of a batch are episodes or sequences.

Episodes are the tasks that MetaTL, MeLU and MetaCF learn from: K + 1 interactions of one training user in
time order, i1 … iK+1. The support is the K - 1 transitions i1 → i2 … iK-1 → iK, the query is iK → iK+1 (Sec.
3.2 of Wang et al. 2021). Sequences are slices of users' histories; the other systems train on them.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from metatl._metatl import EpisodeSampler, SequenceSampler
from metatl.data.full_users import leave_out_full_users

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
    users : ndarray
        (B,) int64, the user of each row.
    items : ndarray
        (B, P + 1) int64, items of the user in order; -1 fills short rows.
    negatives : ndarray
        (B, P, N) int64, items that the user never interacted with: N for each pair
        items[:, j] → items[:, j + 1].
    shared_negatives : ndarray
        (M,) int64, negatives shared by the whole batch; they may coincide with a positive.
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
    """Build the sampler for the kind of batches that a system trains on.

    Parameters
    ----------
    batches : {"episodes", "sequences"}
        The kind of batches.
    train : Interactions
        The training users' interactions, or a part of them.
    config : TrainingConfig
        The system's config; its property `episodes` or `sequences` is read.
    k : int
        K, the interactions of a user that the model sees; for episodes only.
    seed : int
        Seed of the batches.
    item_counts : ndarray, optional
        See :func:`sequence_sampler`.

    Returns
    -------
    EpisodeSampler or SequenceSampler
        The sampler.

    Raises
    ------
    InvalidArgumentError
        If a setting is out of range, or no user has enough interactions.
    NoNegativeError
        If every user has interacted with all items and the settings ask for negatives.
    """
    if batches == "episodes":
        return episode_sampler(train, config.episodes, k=k, seed=seed)
    return sequence_sampler(train, config.sequences, seed=seed, item_counts=item_counts)


def episode_sampler(train: Interactions, settings: EpisodeSettings, *, k: int, seed: int) -> EpisodeSampler:
    """Build a sampler of episodes.

    Parameters
    ----------
    train : Interactions
        The training users' interactions, or a part of them.
    settings : EpisodeSettings
        How episodes are sampled.
    k : int
        K, the interactions of a user that the model sees.
    seed : int
        Seed of the episodes.

    Returns
    -------
    EpisodeSampler
        The sampler.

    Raises
    ------
    InvalidArgumentError
        If a setting is out of range, or no user has K + 1 interactions.
    NoNegativeError
        If every user has interacted with all items and the settings ask for negatives.
    """
    return EpisodeSampler(train.index, k=k, seed=seed, **settings._asdict())


def sequence_sampler(
    train: Interactions,
    settings: SequenceSettings,
    *,
    seed: int,
    item_counts: NDArray[np.int64] | None = None,
) -> SequenceSampler:
    """Build a sampler of sequences.

    Parameters
    ----------
    train : Interactions
        The training users' interactions, or a part of them.
    settings : SequenceSettings
        How sequences and their negatives are sampled.
    seed : int
        Seed of the sequences.
    item_counts : ndarray, optional
        (I,) int64, training interactions of each item, for negatives by popularity; by default the counts
        in `train`.

    Returns
    -------
    SequenceSampler
        The sampler.

    Raises
    ------
    InvalidArgumentError
        If a setting is out of range, or no user has enough interactions.
    NoNegativeError
        If every user has interacted with all items and the settings ask for negatives.
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


def check_negatives(batches: Batches, train: Interactions, config: Any) -> None:
    """Check that there are negatives to draw; the samplers leave out users who have had every item.

    Parameters
    ----------
    batches : {"episodes", "sequences"}
        The kind of batches.
    train : Interactions
        The training users' interactions.
    config : TrainingConfig
        The system's config; its property `episodes` or `sequences` is read.

    Raises
    ------
    NoNegativeError
        If the settings ask for negatives and every user has had every item.

    Warns
    -----
    MetatlWarning
        If the settings ask for negatives and some users have had every item.
    """
    settings = config.episodes if batches == "episodes" else config.sequences
    if settings.negatives > 0:
        leave_out_full_users(train, np.arange(train.num_users), "training")


def part_seeds(seed: int, count: int) -> list[int]:
    """Derive a seed for each of the parts that training alternates between.

    Each sampler numbers its batches from 0. If all parts used one seed, `count` consecutive steps would draw
    the same negatives, and the same user indices within each part.

    Parameters
    ----------
    seed : int
        Seed of the training.
    count : int
        Number of parts.

    Returns
    -------
    list of int
        One seed per part; `seed` itself for a single part.
    """
    if count == 1:
        return [seed]
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count, np.uint64)]


@contextmanager
def alternate(samplers: Sequence[Sampler], first_step: int, batch_size: int) -> Iterator[Iterator[Batch]]:
    """Draw batches from several samplers in turn, ahead of time in background threads.

    Parameters
    ----------
    samplers : sequence of Sampler
        n samplers; step s takes batch s // n of sampler s mod n.
    first_step : int
        The step of the first batch.
    batch_size : int
        Rows per batch.

    Yields
    ------
    iterator of Batch
        The batches of steps `first_step`, `first_step` + 1, …, without end.
    """
    count = len(samplers)
    with ExitStack() as stack:
        # Sampler i has served the steps s < first_step with s mod n = i.
        first_batches = [(first_step + count - 1 - index) // count for index in range(count)]
        iterators = [
            stack.enter_context(sampler.prefetch(first_batch, batch_size))
            for sampler, first_batch in zip(samplers, first_batches, strict=True)
        ]

        def in_turn() -> Iterator[Batch]:
            step = first_step
            while True:
                yield Batch(*next(iterators[step % count]))
                step += 1

        yield in_turn()
