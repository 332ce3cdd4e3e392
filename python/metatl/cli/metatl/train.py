"""`metatl train`: fit a system and write a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from metatl.cli.errors import Command
from metatl.cli.metatl.fitting import fit_and_report
from metatl.cli.options import device_option, reading_options
from metatl.models import SYSTEMS

if TYPE_CHECKING:
    from datetime import datetime

    from metatl.cli.options import Reading

_RECORDED = ("data", "model", "preset", "seed", "compiled")
_SPLIT_OPTIONS = ("k", "cutoff", "cutoff_quantile", "min_item_count", "min_train_rows", "validation_share")


def _parse_overrides(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    import json

    overrides: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"found {value!r}, expected field=value")
        try:
            overrides[name] = json.loads(text)
        except json.JSONDecodeError:
            overrides[name] = text
    return overrides


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--data", help="Interactions file, or `wines` for the bundled data; required, except by --resume."
)
@reading_options
@click.option("--model", default="metatl", help=f"System to fit: {', '.join(SYSTEMS)}.")
@click.option("--preset", default="tuned", help="Preset of the system: paper, official or tuned.")
@click.option("--k", default=3, type=click.IntRange(min=1), help="Interactions in a new user's history.")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of weights, tasks and candidates.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run directory to write.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=_parse_overrides,
    help="Replace a setting of the preset; repeatable. `metatl settings --model NAME` lists them.",
)
@click.option("--max-steps", type=click.IntRange(min=1), help="Short for --set max_steps=N.")
@click.option(
    "--cutoff", type=click.DateTime(["%Y-%m-%d"]), help="T: users who start at or after it are new."
)
@click.option("--cutoff-quantile", default=0.75, help="T as a quantile of the users' first interactions.")
@click.option("--min-item-count", default=10, help="Drop items with fewer interactions.")
@click.option("--min-train-rows", default=5, help="Drop training users with fewer interactions before T.")
@click.option("--validation-share", default=0.3, help="Share of the new users that select the weights.")
@click.option(
    "--all-data",
    is_flag=True,
    help="Choose the steps on the split, then fit once more on every row of every user: for a run to use.",
)
@click.option(
    "--no-validation",
    is_flag=True,
    help="Fit on every row, with the preset's number of steps: where nothing can be held out.",
)
@click.option(
    "--resume", is_flag=True, help="Continue the run in --out with the settings that it was started with."
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace the run in --out; it stays as it is until the new run is finished.",
)
@device_option
@click.option(
    "--compiled", is_flag=True, help="Fuse the kernels of a step with torch.compile: for long trainings."
)
@click.pass_context
def train(
    context: click.Context,
    /,
    out: Path,
    reading: Reading,
    overrides: dict[str, Any],
    max_steps: int | None,
    cutoff: datetime | None,
    all_data: bool,
    no_validation: bool,
    resume: bool,
    overwrite: bool,
    device: str,
    **_: Any,
) -> None:
    """Fit a system on the users of a data set and write a run directory.

    \b
    Examples:
      metatl train --data wines --out runs/wines
      metatl train --data ratings.csv --preset official --k 3 --seed 1 --out runs/official
      metatl train --data sales.csv --columns buyer,article,day --out runs/sales
      metatl train --data sales.csv --all-data --out runs/shop
      metatl train --data wines --set inner_steps=0 --out runs/without-inner-step
      metatl train --out runs/wines --resume
    """  # noqa: D301 (click reads the character)
    from metatl.runs.run_directory import SplitSettings

    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if max_steps is not None:
        overrides["max_steps"] = max_steps
    if cutoff is not None:
        given["cutoff"] = cutoff.date()
    fit_and_report(
        out,
        # Only the given options: `fit` takes the others from the record of the run that it resumes.
        **{name: given[name] for name in _RECORDED if name in given},
        **reading.given(),
        split=SplitSettings(**{name: given[name] for name in _SPLIT_OPTIONS if name in given}),
        config=overrides,
        refit=all_data or None,
        validation=False if no_validation else None,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
