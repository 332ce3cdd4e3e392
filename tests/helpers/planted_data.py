"""Small interactions with a pattern, for tests that fit systems."""

from __future__ import annotations

import numpy as np
import polars as pl

import metatl

NUM_ITEMS = 150


def write_ring(path, users=300, *, items=NUM_ITEMS, rows=(6, 12), first=None, gap=86_400):
    """Write users who walk along a ring of items; on average one step in five is a random jump.

    The number of a user's rows is drawn from `rows`. Users arrive `gap` seconds apart, the first at `first`;
    by default the middle one arrives on 25 December 2013.
    """
    generator = np.random.default_rng(0)
    first = 1_388_000_000 - gap * (users // 2) if first is None else first
    lines = ["user_id,item_id,timestamp"]
    for user in range(users):
        start = int(generator.integers(items))
        for step in range(int(generator.integers(*rows))):
            jump = int(generator.integers(items)) if generator.random() < 0.2 else 0
            lines.append(f"u{user},i{(start + step + jump) % items},{first + gap * user + 1_000 * step}")
    path.write_text("\n".join(lines) + "\n")
    return path


def ring(users=1200, items=150, length=8):
    """Users who walk along a ring of items: the last item determines the next one."""
    generator = np.random.default_rng(0)
    starts = generator.integers(items, size=users)
    steps = np.arange(length)
    return metatl.Interactions.from_frame(
        pl.DataFrame(
            {
                "user_id": np.repeat(np.arange(users), length),
                "item_id": ((starts[:, None] + steps) % items).ravel(),
                "timestamp": (1_000 * np.arange(users)[:, None] + steps).ravel(),
            }
        )
    )


def groups(users, group_size, num_groups):
    """Users who take all items of one group in any order: all but the last tell which one that is."""
    generator = np.random.default_rng(0)
    rows = [
        generator.integers(num_groups) * group_size + generator.permutation(group_size) for _ in range(users)
    ]
    return metatl.Interactions.from_frame(
        pl.DataFrame(
            {
                "user_id": np.repeat(np.arange(users), group_size),
                "item_id": np.concatenate(rows),
                "timestamp": (1_000 * np.arange(users)[:, None] + np.arange(group_size)).ravel(),
            }
        )
    )
