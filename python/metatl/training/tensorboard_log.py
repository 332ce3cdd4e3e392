"""The TensorBoard log of a training. It is a convenience: what fails here is one warning, no error.

Events are written by the training thread. `torch.utils.tensorboard` writes them in a thread of its own, whose
errors end as tracebacks on stderr, or as an error of a later call.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from typing import TYPE_CHECKING, Any

from metatl.exceptions import MetatlWarning

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

_FILE_VERSION = "brain.Event:2"


class TensorBoardLog:
    """Scalars in one event file, which is made with the first of them.

    Parameters
    ----------
    folder : Path or None
        The folder of event files; None writes nothing.
    first_step : int
        The first step of this training. What an interrupted training logged from this step on is hidden.
    """

    def __init__(self, folder: Path | None, first_step: int) -> None:
        self._folder = folder
        self._first_step = first_step
        self._file: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars; after the first failure a warning is given and nothing more is written.

        Parameters
        ----------
        values : mapping of str to float
            Values by their names.
        step : int
            Steps that are done.
        """
        if self._folder is None:
            return
        try:
            self._write(self._folder, values, step)
        except Exception as error:  # noqa: BLE001 (whatever fails here must not end a training)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._close()
            warnings.warn(
                f"{self._folder}: the TensorBoard log is not written any more "
                f"({' '.join(reason.split()) or type(error).__name__}); the training goes on",
                MetatlWarning,
                stacklevel=2,
            )
            self._folder = None

    def _write(self, folder: Path, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        events = []
        if self._file is None:
            folder.mkdir(exist_ok=True)
            # TensorBoard reads the files in the order of their names.
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            # Unbuffered: what is written is complete after every evaluation.
            self._file = (folder / name).open("xb", buffering=0)
            start = SessionLog(status=SessionLog.START)
            events += [
                Event(step=self._first_step, file_version=_FILE_VERSION),
                Event(step=self._first_step, session_log=start),
            ]
        scalars = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        events.append(Event(step=step, summary=Summary(value=scalars)))
        writer = RecordWriter(self._file)
        for event in events:
            event.wall_time = time.time()
            writer.write(event.SerializeToString())

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()
