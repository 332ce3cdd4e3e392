"""The progress bar of a download: bytes, speed, time left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


@contextmanager
def download_progress(console: Console) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar from the first byte on, if the console is a terminal.

    Yields the function that updates the bar; it takes the bytes so far, and all bytes or None.
    """
    bar = Progress(
        TextColumn("downloading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("downloading", total=None)

    def update(done: int, total: int | None) -> None:
        bar.start()
        bar.update(task, total=total, completed=done)

    try:
        yield update
    finally:
        bar.stop()
