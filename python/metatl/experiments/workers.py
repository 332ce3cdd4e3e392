"""Run cells in worker processes; a failure ends one cell and no other.

`concurrent.futures` is not used: it breaks the whole pool when one process dies, for instance for lack of
memory, and reports no progress within a task. Here a process that dies loses its own cell only, and a new
process replaces it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from metatl.experiments.cells import Cell
    from metatl.training.outer_loop import Progress

STOPPING_SECONDS = 60.0
"""Time for a training to finish its step and save, before its process is killed."""

_MESSAGE_SECONDS = 0.5


@dataclass(frozen=True)
class Started:
    """A process has taken a cell."""

    cell: Cell


@dataclass(frozen=True)
class Stepped:
    """A training has reached a step."""

    cell: Cell
    step: int
    max_steps: int


@dataclass(frozen=True)
class Finished:
    """A cell is finished."""

    cell: Cell


@dataclass(frozen=True)
class Failed:
    """A cell has failed.

    Attributes
    ----------
    cell : Cell
        The cell.
    reason : str
        Why, in one line.
    """

    cell: Cell
    reason: str


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    cell: Cell | None = None


def work(
    cells: Sequence[Cell], out: Path, *, jobs: int, threads: int, device: str
) -> Generator[Started | Stepped | Finished | Failed]:
    """Run cells in worker processes, and yield the events.

    If the iteration ends early, as after Ctrl-C, the processes are asked to stop, and the call waits until
    the trainings have saved their checkpoints.

    Parameters
    ----------
    cells : sequence of Cell
        The cells, in the order in which they start.
    out : Path
        Directory of the experiment.
    jobs : int
        Processes.
    threads : int
        Threads of each.
    device : str
        `auto`, `cpu` or `cuda`.

    Yields
    ------
    Started, Stepped, Finished or Failed
        Every cell starts once and then finishes or fails once.
    """
    waiting = list(reversed(cells))
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.cell is not None for worker in workers):
            while waiting and len(workers) < jobs:
                workers.append(_start(out, threads, device))
            for worker in workers:
                if worker.cell is None and waiting:
                    worker.cell = waiting.pop()
                    yield Started(worker.cell)
                    _give(worker)
            busy = {worker.pipe: worker for worker in workers if worker.cell is not None}
            for pipe in connection.wait(list(busy)):
                event = _receive(busy[pipe])  # type: ignore[index]  # they are the pipes that were given
                if isinstance(event, (Finished, Failed)):
                    busy[pipe].cell = None  # type: ignore[index]
                yield event
            workers = [worker for worker in workers if not worker.pipe.closed]
    finally:
        _stop(workers)


def _start(out: Path, threads: int, device: str) -> _Worker:
    # A forked child would inherit torch's thread pools in an unusable state.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, out, threads, device), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker) -> None:
    try:
        worker.pipe.send(worker.cell)
    except OSError:
        # The process has died; the next read from its pipe reports it.
        return


def _receive(worker: _Worker) -> Stepped | Finished | Failed:
    cell = worker.cell
    if cell is None:
        raise AssertionError("only processes with a cell are read from")
    try:
        kind, *values = worker.pipe.recv()
    except (EOFError, OSError):
        worker.pipe.close()
        worker.process.join()
        return Failed(cell, f"its process ended with exit code {worker.process.exitcode}")
    if kind == "stepped":
        return Stepped(cell, *values)
    return Finished(cell) if kind == "finished" else Failed(cell, *values)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.cell is None:
            worker.pipe.close()
        else:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(STOPPING_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def _work(pipe: Connection, out: Path, threads: int, device: str) -> None:
    # The terminal sends Ctrl-C to the whole process group. Workers ignore it: the parent asks each of them to
    # stop once, and a second signal would end a training before it has saved.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Read by OpenMP when torch is loaded, and by the kernels.
    os.environ["OMP_NUM_THREADS"] = os.environ["METATL_NUM_THREADS"] = str(threads)
    from metatl.experiments.cells import run_cell
    from metatl.training.stop_signals import TrainingStopped

    while True:
        try:
            cell: Cell = pipe.recv()
        except EOFError:
            return
        try:
            run_cell(cell, out, threads=threads, device=device, on_progress=_reporter(pipe))
        except Exception as error:  # noqa: BLE001 (any failure ends one cell only)
            (cell.path(out) / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            pipe.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"))
            if isinstance(error, TrainingStopped):
                return
        else:
            pipe.send(("finished",))


def _end_with_parent() -> None:
    """End at once when the parent has died: its next run starts the cell again."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _reporter(pipe: Connection) -> Callable[[Progress], None]:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _MESSAGE_SECONDS or progress.step == progress.max_steps:
            last = now
            pipe.send(("stepped", progress.step, progress.max_steps))

    return report
