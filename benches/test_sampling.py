"""Episodes and candidate sets."""

import numpy as np
import pytest

import reference
from metatl import _metatl
from sizes import NUM_ITEMS, NUM_USERS, K

BATCH = 1024
COUNT = 100
LENGTH = 20


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("", {"negatives": 1}),
        (", without negatives", {"negatives": 0}),
        (", windows without negatives", {"negatives": 0, "window_share": 1.0}),
    ],
)
def test_episodes_metatl(measure, world, part, settings):
    sampler = _metatl.EpisodeSampler(world.interactions, k=K, seed=0, **settings)
    measure(
        lambda: sampler.sample(0, 64 * BATCH),
        work=f"episode sampling, K = 3{part}",
        system="metatl",
        units=64 * BATCH,
        unit="episodes",
        rounds=200,  # threads of benchmarks before spin for a while
    )


def test_episodes_python(measure, world):
    measure(
        lambda: reference.sample_episodes(world.rows, world.sets, NUM_ITEMS, K, BATCH, 0),
        work="episode sampling, K = 3",
        system="plain Python",
        units=BATCH,
        unit="episodes",
        rounds=20,
    )


def test_sequences_metatl(measure, world):
    sampler = _metatl.SequenceSampler(world.interactions, length=LENGTH, negatives=1, seed=0)
    measure(
        lambda: sampler.sample(0, 64 * BATCH),
        work="sequence sampling, up to 20 items and a negative each",
        system="metatl",
        units=64 * BATCH,
        unit="sequences",
    )


def test_sequences_python(measure, world):
    measure(
        lambda: reference.sample_sequences(world.rows, world.sets, NUM_ITEMS, LENGTH, BATCH, 0),
        work="sequence sampling, up to 20 items and a negative each",
        system="plain Python",
        units=BATCH,
        unit="sequences",
    )


def test_candidates_metatl(measure, world):
    users, targets = np.arange(NUM_USERS), world.items[world.indptr[:-1]]
    measure(
        lambda: _metatl.sample_candidates(world.interactions, users, targets, COUNT, seed=0),
        work="candidate sets of 100",
        system="metatl",
        units=NUM_USERS,
        unit="users",
    )


def test_candidates_numpy_with_replacement(measure, world):
    targets = world.items[world.indptr[:-1]]
    measure(
        lambda: reference.sample_candidates_numpy(world.indptr, world.items, NUM_ITEMS, targets, COUNT, 0),
        work="candidate sets of 100",
        system="numpy, with replacement",
        units=NUM_USERS,
        unit="users",
    )


def test_candidates_python(measure, world):
    targets = world.items[world.indptr[:513]].tolist()[:512]
    measure(
        lambda: reference.sample_candidates_python(world.sets, NUM_ITEMS, targets, COUNT, 0),
        work="candidate sets of 100",
        system="plain Python",
        units=512,
        unit="users",
    )
