"""Ctrl-C, SIGTERM and SIGHUP during a training: finish the step, save a checkpoint, stop."""

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
        SIGINT, SIGTERM or SIGHUP.
    step : int
        Steps that are done; 0 if the signal came before the first step, so that nothing was saved.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        when = f"after step {step}" if step else "before the first step"
        super().__init__(f"stopped by {signal.Signals(signal_number).name} {when}")
        self.signal_number = signal_number
        self.step = step


class StopSignals:
    """Context in which SIGINT, SIGTERM and SIGHUP end a training in an orderly way.

    Before :meth:`wait_for_step` the first signal raises at once: SIGINT a `KeyboardInterrupt`, the others
    `TrainingStopped`. After it, the first signal is recorded for a loop to check between steps. The second
    one has its usual effect. On leaving, the previous handlers are restored.

    Attributes
    ----------
    received : int or None
        The signal's number; None before a signal.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._waits_for_step = False
        self._previous_handlers: dict[int, Any] = {}

    def wait_for_step(self) -> None:
        """Record signals from now on: the training checks `received` after every step."""
        self._waits_for_step = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            self._restore()
            signal.raise_signal(number)
        self.received = number
        if not self._waits_for_step:
            raise KeyboardInterrupt if number == signal.SIGINT else TrainingStopped(number, 0)

    def _restore(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        # Python runs signal handlers in the main thread only; in another thread, the caller stops the loop.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                before = signal.getsignal(number)
                # Under nohup, SIGHUP is ignored. None is a handler that Python cannot restore.
                if before is not None and (number, before) != (signal.SIGHUP, signal.SIG_IGN):
                    self._previous_handlers[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
