"""A small data set with candidates, for tests of external scores."""

from __future__ import annotations

import numpy as np
import polars as pl

from metatl.data.candidates import CandidateSets, sample_candidate_sets
from metatl.data.interactions import Interactions
from metatl.data.split import ColdStartSplit, cold_start_split

NUM_ITEMS = 150
NEGATIVES = 20


def small_split(users: int = 300, seed: int = 0) -> ColdStartSplit:
    """A split of users with 6 to 11 items each, who arrive one after another; raw ids are text."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        items = generator.permutation(NUM_ITEMS)[: int(generator.integers(6, 12))]
        rows += [(f"u{user}", f"i{item}", 1_000_000 * user + step) for step, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return cold_start_split(Interactions.from_frame(frame), k=3, min_item_count=1)


def small_candidates(split: ColdStartSplit) -> CandidateSets:
    """Candidates of the test users."""
    return sample_candidate_sets(split, split.test, n=NEGATIVES, seed=3)
