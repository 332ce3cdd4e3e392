"""`metatl reproduce`: the tables and the figure of the paper, on the given data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.errors import Command, Group
from metatl.cli.options import device_option, ks_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from metatl.experiments.report_files import Report
    from metatl.experiments.table_rows import Budget, Row

DATA_HELP = (
    "`wines` for the bundled data, or a name and a file; electronics, movies and goodreads are the paper's."
)


_data_options = (
    click.argument("more_data", nargs=-1, metavar="[NAME=PATH]..."),
    click.option("--data", "data", multiple=True, metavar="NAME=PATH", help=DATA_HELP),
    click.option("--out", type=click.Path(path_type=Path), help="Where to write.  [default: runs/reproduce]"),
)
_grid_options = (
    click.option("--seeds", default=5, type=click.IntRange(min=1), help="Seeds; 1 under --budget smoke."),
    click.option(
        "--jobs",
        default=1,
        type=click.IntRange(min=1),
        help="Number of fits at a time; they share the processors.",
    ),
    click.option(
        "--budget",
        default="tuned",
        type=click.Choice(["smoke", "paper", "tuned"]),
        help="Presets of the systems; smoke trains for a few steps, to check that everything runs.",
    ),
    device_option,
    click.option(
        "--configs",
        type=click.Path(path_type=Path),
        help="Folder that `metatl tune --out` wrote: its settings replace the preset tuned.",
    ),
    click.option(
        "--kept",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder of finished fits, such as docs/results of the repository; they are not repeated.",
    ),
)


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group(cls=Group)
def reproduce() -> None:
    """Reproduce the tables and the figure of the paper, and show the paper's values beside ours.

    Every command writes Markdown, JSON, pictures and one HTML page to --out. The fits are kept there as well:
    a second call continues where the first one stopped.
    """


@reproduce.command(cls=Command, context_settings={"show_default": True})
@_with(_data_options)
def table1(more_data: tuple[str, ...], data: tuple[str, ...], out: Path | None) -> None:
    """Describe data sets beside Table 1 of the paper, and list the differences.

    \b
    Examples:
      metatl reproduce table1 --data wines
      metatl reproduce table1 --data electronics=ratings_Electronics.csv.gz movies=movies.tsv.gz
    """  # noqa: D301 (click reads the character)
    from metatl.experiments.data_sources import parse_sources
    from metatl.experiments.table1 import table1 as make

    _write(make(parse_sources(_given(data, more_data))), out)


@reproduce.command(cls=Command, context_settings={"show_default": True})
@_with(_data_options)
@ks_option("3")
@_with(_grid_options)
def table2(**options: Any) -> None:
    """Compare all systems under one protocol, beside Table 2 of the paper.

    \b
    Examples:
      metatl reproduce table2 --data wines --budget smoke
      metatl reproduce table2 --data wines sports=sports.tsv.gz --k 2,3,4 --seeds 5 --jobs 4
    """  # noqa: D301 (click reads the character)
    from metatl.experiments.table2 import table2 as make
    from metatl.experiments.table_rows import table_rows

    _reproduce(make, table_rows, **options)


@reproduce.command(cls=Command, context_settings={"show_default": True})
@_with(_data_options)
@ks_option("2,3,4")
@_with(_grid_options)
def figure2(**options: Any) -> None:
    """Draw MRR over K of BERT4Rec, MetaTL−−, MetaCF and MetaTL, as the paper's Figure 2 does."""
    from metatl.experiments.figure2 import figure2 as make
    from metatl.experiments.figure2 import figure2_rows

    _reproduce(make, figure2_rows, **options)


@reproduce.command(cls=Command, context_settings={"show_default": True})
@_with(_data_options)
@ks_option("3")
@_with(_grid_options)
def ablation(**options: Any) -> None:
    """Change the released program into the paper's method and then into `tuned`, one change at a time."""
    from metatl.experiments.ablation import ablation as make
    from metatl.experiments.ablation import ablation_rows

    _reproduce(make, ablation_rows, **options)


def _reproduce(
    make: Callable[..., Report],
    list_rows: Callable[[Budget], list[Row]],
    *,
    more_data: tuple[str, ...],
    data: tuple[str, ...],
    out: Path | None,
    ks: tuple[int, ...],
    seeds: int,
    jobs: int,
    budget: Budget,
    device: str,
    configs: Path | None,
    kept: Path | None,
) -> None:
    from rich.console import Console

    from metatl.experiments.data_sources import parse_sources
    from metatl.experiments.grid import plan, run_grid
    from metatl.experiments.tuned_settings import read_tuned_settings

    sources, rows = parse_sources(_given(data, more_data)), list_rows(budget)
    if budget == "smoke":
        seeds = 1
    tuned = {} if configs is None else read_tuned_settings(configs)
    cells = plan(sources, rows, ks=ks, seeds=seeds, configs=tuned)
    directory = _directory(out)
    console = Console(stderr=True)
    outcome = run_grid(
        cells, directory, console=console, jobs=jobs, device=device, name=make.__name__, kept=kept
    )
    _write(make(outcome, sources, rows, ks=ks, seeds=seeds, budget=budget), directory)
    outcome.check()


def _given(data: tuple[str, ...], more_data: tuple[str, ...]) -> list[str]:
    given = [*data, *more_data]
    if not given:
        raise click.UsageError("Missing option '--data': wines, or NAME=PATH.")
    return given


def _directory(out: Path | None) -> Path:
    return Path("runs/reproduce") if out is None else out


def _write(report: Report, out: Path | None) -> None:
    from metatl.evaluation.report.pages import markdown
    from metatl.experiments.report_files import write_report

    files = write_report(_directory(out), report)
    click.echo(markdown(report.parts))
    click.echo("written: " + ", ".join(map(str, files)), err=True)
