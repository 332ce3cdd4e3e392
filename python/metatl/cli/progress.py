"""Progress bars: of a training (steps, speed, loss, validation MRR, time left) and of an evaluation."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import Task

    from metatl.training.outer_loop import Progress as TrainingProgress

STEPS_BETWEEN_UPDATES = 10
"""The loss is not read at every step, because reading it waits for the device."""


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f} steps/s")


@contextmanager
def training_progress(console: Console) -> Iterator[Callable[[TrainingProgress], None]]:
    """Show a progress bar from the first step on, if the console is a terminal.

    Yields the function that updates the bar.
    """
    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("validation MRR {task.fields[mrr]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("training", total=None, loss="-", mrr="-")

    def update(progress: TrainingProgress) -> None:
        if bar.disable:
            return
        bar.start()
        if progress.step % STEPS_BETWEEN_UPDATES == 0 or progress.step == progress.max_steps:
            mrr = "-" if progress.validation_mrr is None else f"{progress.validation_mrr:.4f}"
            loss = f"{progress.loss.item():.4f}"
            bar.update(task, total=progress.max_steps, completed=progress.step, loss=loss, mrr=mrr)

    try:
        yield update
    finally:
        bar.stop()


@contextmanager
def users_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many users are ranked, if the console is a terminal.

    Yields the function that updates the bar; it takes the number of ranked users and of all users.
    """
    bar = Progress(
        TextColumn("ranking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    task = bar.add_task("ranking", total=None)

    def update(users: int, total: int) -> None:
        bar.start()
        bar.update(task, total=total, completed=users)

    try:
        yield update
    finally:
        bar.stop()
