"""How a call is timed, here and in the peers' environments."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

ROUNDS, SECONDS = 3, 1.0


def least_seconds(call: Callable[[], Result]) -> tuple[float, Result]:
    """The least seconds of three calls, or of as many as take a second; and what the last gave."""
    rounds: list[float] = []
    while len(rounds) < ROUNDS or sum(rounds) < SECONDS:
        begin = time.perf_counter()
        result = call()
        rounds.append(time.perf_counter() - begin)
    return min(rounds), result
