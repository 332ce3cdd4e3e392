"""Ctrl-C and SIGTERM during a training: finish the step, save a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from typing_extensions import Self


class TrainingStopped(Exception):  # noqa: N818 (a requested stop, not an error)
    """A signal stopped the training. If there is a run directory, it holds a checkpoint of the last step.

    Parameters
    ----------
    signal_number : int
        SIGINT or SIGTERM.
    step : int
        Steps that are done.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number
        self.step = step


class StopSignals:
    """Context that records the first SIGINT or SIGTERM, for a loop to check between steps.

    The second signal has its usual effect at once. On leaving, the previous handlers are restored.

    Attributes
    ----------
    received : int or None
        The signal's number; None before a signal.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            self._restore()
            signal.raise_signal(number)
        self.received = number

    def _restore(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        # Python runs signal handlers in the main thread only; in another thread, the caller stops the loop.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
