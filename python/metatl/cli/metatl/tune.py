"""`metatl tune`: search for the settings of systems, with the same number of trials each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import STOPPED_BY_SIGNAL, Command
from metatl.cli.options import device_option

if TYPE_CHECKING:
    from datetime import datetime

    from metatl.experiments.tuning import Search


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--data", required=True, help="Interactions file, or `wines` for the bundled data.")
@click.option(
    "--model", "models", multiple=True, help="System to tune; repeatable.  [default: all with a search space]"
)
@click.option("--trials", default=30, type=click.IntRange(min=1), help="Settings to try, for each system.")
@click.option("--k", default=3, type=click.IntRange(min=1), help="Interactions in a new user's history.")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of the fits and of the search.")
@click.option(
    "--cutoff", type=click.DateTime(["%Y-%m-%d"]), help="T: users who start at or after it are new."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the search.")
@device_option
def tune(
    data: str,
    models: tuple[str, ...],
    trials: int,
    k: int,
    seed: int,
    cutoff: datetime | None,
    out: Path,
    device: str,
) -> None:
    """Search for the settings of systems by MRR on validation users; needs Optuna (`metatl[tune]`).

    Writes the best settings of each system as JSON to --out; `metatl reproduce --configs` reads them. A
    second call continues where the first one stopped. Other data, another K or another seed needs another
    --out.

    \b
    Examples:
      metatl tune --data wines --model knn --trials 50 --out runs/tuned
      metatl tune --data wines --out runs/tuned
    """  # noqa: D301 (click reads the character)
    from metatl.experiments.search_spaces import SEARCH_SPACES
    from metatl.experiments.tuning import Search
    from metatl.runs.run_directory import SplitSettings

    split = SplitSettings(k=k, cutoff=None if cutoff is None else cutoff.date())
    for model in dict.fromkeys(models or SEARCH_SPACES):
        _tune(Search(model, data, split, seed, trials), out, device)


def _tune(search: Search, out: Path, device: str) -> None:
    import json

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from metatl.experiments.tuning import tune as search_settings
    from metatl.training.stop_signals import TrainingStopped

    console = Console(stderr=True)
    columns = (
        TextColumn(search.model),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("best validation MRR {task.fields[best]}"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("trials", total=search.trials, best="-")

            def show(done: int, best: float | None) -> None:
                bar.update(task, completed=done, best="-" if best is None else f"{best:.4f}")

            settings = search_settings(search, out, device=device, on_trial=show)
    except TrainingStopped as stopped:
        click.echo(f"{stopped.args[0]}; the same command goes on with the search", err=True)
        raise SystemExit(STOPPED_BY_SIGNAL + stopped.signal_number) from None
    click.echo(
        f"{settings.model}: validation MRR {settings.validation_mrr:.4f} after {settings.trials} trials"
    )
    options = " ".join(f"--set {name}={json.dumps(value)}" for name, value in settings.config.items())
    click.echo(f"  metatl train --data {search.data} --model {settings.model} --k {settings.k} {options}")
