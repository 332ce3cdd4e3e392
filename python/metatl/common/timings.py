"""The seconds that each stage of a program takes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Timings:
    """Sums of the wall-clock seconds of named stages; a stage can be entered many times.

    Attributes
    ----------
    seconds : dict of str to float
        Stages to seconds, in the order in which the stages were first entered.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage.

        Parameters
        ----------
        name : str
            The name of the stage.
        """
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
