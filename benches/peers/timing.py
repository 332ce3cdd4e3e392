"""Time a call, in our environment and in those of the peers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

ROUNDS, SECONDS = 3, 1.0


def least_seconds(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the least seconds of three calls, or of the calls of one second, and the last result."""
    rounds: list[float] = []
    while len(rounds) < ROUNDS or sum(rounds) < SECONDS:
        begin = time.perf_counter()
        result = call()
        rounds.append(time.perf_counter() - begin)
    return min(rounds), result
