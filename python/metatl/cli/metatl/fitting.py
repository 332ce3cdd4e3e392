"""Fit a run for a command: what was read and how it was split, a progress bar, and how the fit was made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.errors import STOPPED_BY_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metatl.data.interactions import Interactions
    from metatl.data.split import ColdStartSplit


def fit_and_report(out: Path, *, resume: bool, data: str | None = None, **arguments: Any) -> None:
    """Call :func:`metatl.fit` and print what it did.

    Parameters
    ----------
    out : Path
        The run directory.
    resume : bool
        Whether a run in it is continued.
    data : str, optional
        Name of the data.
    **arguments
        The other arguments of :func:`metatl.fit`.

    Raises
    ------
    SystemExit
        If a signal stopped the training.
    """
    from rich.console import Console

    from metatl.cli.progress import training_progress
    from metatl.runs.training_directory import is_complete
    from metatl.training.fit import fit
    from metatl.training.stop_signals import TrainingStopped

    finished = resume and is_complete(out)
    begin = time.perf_counter()
    try:
        with training_progress(Console(stderr=True)) as update:
            run = fit(
                data, out=out, resume=resume, on_data=describe_data(data), on_progress=update, **arguments
            )
    except TrainingStopped as stopped:
        what_next = f"continue with: metatl train --out {out} --resume" if stopped.step else "start it again"
        click.echo(f"{stopped}; {what_next}", err=True)
        raise SystemExit(STOPPED_BY_SIGNAL + stopped.signal_number) from None
    if finished:
        click.echo(f"{out} is finished: nothing to resume")
        return
    from metatl.runs.metrics_file import read_metrics

    metrics = read_metrics(out)
    if run.record.refit:
        describe_fit(out)
    click.echo(f"seconds       {time.perf_counter() - begin:.1f}")
    validation = f"validation MRR {metrics['MRR']:.4f}" if metrics else "no validation"
    click.echo(f"{run.record.model} ({run.record.preset}): {validation}, written to {out}")


def describe_fit(out: Path) -> None:
    """Say how a run that is fitted on every row was fitted."""
    from metatl.runs.metrics_file import read_fit_report

    report = read_fit_report(out)
    steps = "" if report.steps is None else f"{report.steps:,} steps: "
    click.echo(f"chosen        {steps}{report.chosen_by}")
    click.echo(
        f"fitted on     every row: {report.rows:,} of {report.users:,} users with {report.items:,} items"
    )


def describe_data(data: str | None) -> Callable[[Interactions, ColdStartSplit], None]:
    """Make a function that says what was read and how it was split, before a long training."""

    def describe(interactions: Interactions, split: ColdStartSplit) -> None:
        from metatl.cli.data_lines import largest_user, rows_read

        if data is not None:
            click.echo(f"data          {data}")
        click.echo(f"rows          {rows_read(interactions)}")
        click.echo(f"largest user  {largest_user(interactions)}")
        if split.cold.num_users:
            click.echo(
                f"T             {split.cutoff:%Y-%m-%d}: {split.train.num_users:,} training users, "
                f"{split.cold.num_users:,} new users, {split.num_items:,} items"
            )
        else:
            click.echo("T             none: no row is held out")

    return describe
