"""`metatl update`: go on from a run on a longer log, and replace it in one step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import STOPPED_BY_SIGNAL, Command
from metatl.cli.metatl.fitting import describe_data, describe_fit
from metatl.cli.options import device_option, reading_options

if TYPE_CHECKING:
    from metatl.cli.options import Reading


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="The whole log, the rows that RUN was fitted on included.")
@reading_options
@click.option("--out", type=click.Path(path_type=Path), help="Directory to write, instead of replacing RUN.")
@click.option(
    "--steps-share", default=0.2, help="Share of the run's training steps that a trained system takes again."
)
@device_option
def update(run: Path, data: str, reading: Reading, out: Path | None, steps_share: float, device: str) -> None:
    """Bring RUN up to a longer log: more rows, more users, more items.

    Systems that count are counted anew. Trained ones start from the weights of RUN, and new items from their
    co-occurrences. RUN stays as it is until the new run takes its place, in one step; after a kill, repeat
    the command. Data is read as that of RUN was, unless the options say otherwise.

    \b
    Examples:
      metatl train --data sales.csv --all-data --out runs/shop
      metatl update runs/shop --data sales.csv
    """  # noqa: D301 (click reads the character)
    from rich.console import Console

    from metatl.cli.progress import training_progress
    from metatl.training.stop_signals import TrainingStopped
    from metatl.training.update import update as update_run

    described: list[None] = []
    describe = describe_data(data)
    begin = time.perf_counter()
    try:
        with training_progress(Console(stderr=True)) as show:
            updated = update_run(
                run,
                data,
                out=out,
                steps_share=steps_share,
                **reading.given(),
                device=device,
                on_data=lambda *parts: described.append(describe(*parts)),
                on_progress=show,
            )
    except TrainingStopped as stopped:
        click.echo(f"{stopped}; repeat the command to continue", err=True)
        raise SystemExit(STOPPED_BY_SIGNAL + stopped.signal_number) from None
    target = run if out is None else out
    if not described:
        click.echo(f"{run} is fitted on every row of {data}: nothing to update")
        return
    describe_fit(target)
    click.echo(f"seconds       {time.perf_counter() - begin:.1f}")
    click.echo(f"{updated.record.model} ({updated.record.preset}): updated, written to {target}")
