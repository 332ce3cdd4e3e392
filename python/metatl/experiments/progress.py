"""The progress display of a grid: finished cells, time left, and the step of each running training."""

from __future__ import annotations

import time
from contextlib import contextmanager
from statistics import mean
from typing import TYPE_CHECKING, TypeAlias

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from metatl.experiments.workers import Failed, Finished, Started, Stepped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.progress import TaskID

    from metatl.experiments.cells import Cell

Event: TypeAlias = "Started | Stepped | Finished | Failed"


class Clock:
    """Estimates the time left from how long cells of the same kind took.

    Parameters
    ----------
    cells : sequence of Cell
        The cells to run.
    jobs : int
        Number of cells that run at a time.
    """

    def __init__(self, cells: Sequence[Cell], jobs: int) -> None:
        self.jobs = jobs
        self._waiting = set(cells)
        self._started: dict[Cell, float] = {}
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def start(self, cell: Cell, now: float) -> None:
        """Note that a cell has started."""
        self._started[cell] = now

    def end(self, cell: Cell, now: float) -> None:
        """Note that a cell has finished or failed."""
        self._waiting.discard(cell)
        self._seconds.setdefault(_kind(cell), []).append(now - self._started.pop(cell))

    def seconds_left(self, now: float) -> float | None:
        """Estimate the seconds until all cells are done; None until the first cell has ended.

        The estimate for a cell is the mean time of the cells of its row on its data set, or the mean of all
        cells if there are none yet.
        """
        if not self._seconds:
            return None
        overall = mean(seconds for kind in self._seconds.values() for seconds in kind)
        left = 0.0
        for cell in self._waiting:
            expected = mean(self._seconds.get(_kind(cell), [overall]))
            left += max(0.0, expected - (now - self._started.get(cell, now)))
        return left / self.jobs


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.source.name, cell.row.title


@contextmanager
def grid_progress(
    console: Console, cells: Sequence[Cell], unfinished: Sequence[Cell], jobs: int
) -> Iterator[Callable[[Event, float | None], None]]:
    """Show a bar for the grid and for each running cell, and print a line for each cell that ends.

    Yields the function that takes an event, and the MRR of the cell if it has finished.
    """
    clock = Clock(unfinished, jobs)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not console.is_terminal,
    )
    done = len(cells) - len(unfinished)
    grid = bar.add_task("cells", total=len(cells), completed=done, left="")
    running: dict[Cell, TaskID] = {}

    def show(event: Event, mrr: float | None) -> None:
        nonlocal done
        now, cell = time.monotonic(), event.cell
        if isinstance(event, Started):
            clock.start(cell, now)
            running[cell] = bar.add_task(cell.name, total=None, left="")
        elif isinstance(event, Stepped):
            bar.update(running[cell], total=event.max_steps, completed=event.step)
        else:
            clock.end(cell, now)
            bar.remove_task(running.pop(cell))
            done += 1
            text = f"failed: {event.reason}" if isinstance(event, Failed) else f"MRR {mrr:.4f}"
            console.print(
                f"{done}/{len(cells)} {cell.name}: {text}", markup=False, highlight=False, soft_wrap=True
            )
        bar.update(grid, completed=done, left=_in_words(clock.seconds_left(now)))

    with bar:
        yield show


def _in_words(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left"
