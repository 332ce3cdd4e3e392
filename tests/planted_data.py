"""Small interactions with a pattern, for tests that fit systems."""

from __future__ import annotations

import numpy as np

NUM_ITEMS = 150


def write_ring(path, users=300):
    """Users who walk along a ring of items, now and then jumping; each arrives a day after the one before."""
    generator = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(users):
        start = int(generator.integers(NUM_ITEMS))
        for place in range(int(generator.integers(6, 12))):
            jump = int(generator.integers(NUM_ITEMS)) if generator.random() < 0.2 else 0
            lines.append(
                f"u{user},i{(start + place + jump) % NUM_ITEMS},"
                f"{1_388_000_000 + 86_400 * (user - users // 2) + 1_000 * place}"
            )
    path.write_text("\n".join(lines) + "\n")
    return path
