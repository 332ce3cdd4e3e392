"""Processes that work on cells: started afresh, told apart from the terminal, each failing for itself alone.

`concurrent.futures` gives up all its work when one process dies (a killed one, out of memory, say) and knows
no progress within a task. Here a process that dies loses its own cell, and another takes its place.
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
"""How long a training may take to finish its step and save before its process is killed."""

_MESSAGE_SECONDS = 0.5


@dataclass(frozen=True)
class Started:
    """A process has taken a cell."""

    cell: Cell


@dataclass(frozen=True)
class Stepped:
    """A training has come this far."""

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
    cell
        The cell.
    reason
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
    """Run cells in processes of their own, and tell what happens.

    Leaving the iteration early, as Ctrl-C does, asks the processes to stop and waits until trainings have
    saved their checkpoints.

    Parameters
    ----------
    cells
        What to do, in this order.
    out
        Directory of the experiment.
    jobs
        Processes.
    threads
        Threads of each.
    device
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
        # The process has died; reading from its pipe tells, as it does of any other death.
        return


def _receive(worker: _Worker) -> Stepped | Finished | Failed:
    cell = worker.cell
    if cell is None:
        raise AssertionError("only processes with a cell are listened to")
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
    # The terminal sends Ctrl-C to its whole group. Here it is for the parent, which asks each process once: a
    # second signal would end a training before it has saved. What stops and continues the group is for all.
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
        except Exception as error:  # noqa: BLE001 (one cell's fault, whatever it is, is not the others')
            (cell.path(out) / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            pipe.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"))
            if isinstance(error, TrainingStopped):
                return
        else:
            pipe.send(("finished",))


def _end_with_parent() -> None:
    """End at once when the parent is gone: nobody would hear of the cell, and the next call wants it."""
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
