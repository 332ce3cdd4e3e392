"""Regenerate `docs/results.md`; `make results` runs it.

It is not a command of `metatl`, because it writes a page of the repository. With `--kept` finished cells are
kept in the repository as well (:mod:`metatl.experiments.published_cells`): they are not made again, and the
page needs no data for them.
"""

from __future__ import annotations

from pathlib import Path

import click

from metatl.cli.errors import Command
from metatl.cli.options import ks_option


@click.command(cls=Command)
@click.option(
    "--data",
    "data",
    multiple=True,
    default=["wines"],
    show_default=True,
    metavar="NAME=PATH",
    help="`wines`, or a name and a file. The page also shows the published cells of other data.",
)
@ks_option("2,3,4")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/results"),
    show_default=True,
    help="Folder of the cells.",
)
@click.option(
    "--kept",
    type=click.Path(path_type=Path),
    help="Folder of published cells: they are not made again, and new ones are added.",
)
@click.option("--markdown", "page", type=click.Path(path_type=Path), required=True, help="The page to write.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Number of cells at a time.  [default: one a processor]"
)
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--only-finished", is_flag=True, help="Fit nothing: write the page from the finished cells.")
def results(
    data: tuple[str, ...],
    ks: tuple[int, ...],
    seeds: int,
    out: Path,
    kept: Path | None,
    page: Path,
    jobs: int | None,
    device: str,
    only_finished: bool,
) -> None:
    """Fit and evaluate every system on every data set, then write the page of results."""
    from rich.console import Console

    from metatl.common.files import write_text
    from metatl.evaluation.report.pages import Image, markdown, write_bytes
    from metatl.experiments.data_sources import DataSource, parse_sources
    from metatl.experiments.grid import gather, num_processors, plan, run_grid
    from metatl.experiments.published_cells import kept_fingerprints
    from metatl.experiments.results_page import results_page
    from metatl.experiments.table_rows import table_rows

    sources, rows = parse_sources(data), table_rows("tuned")
    cells = plan(sources, rows, ks=ks, seeds=seeds)
    failures: list[str] = []
    if not only_finished:
        jobs = num_processors() if jobs is None else jobs
        failures = run_grid(
            cells, out, console=Console(), jobs=jobs, device=device, kept=kept, keep_new=True
        ).failures
    names = [source.name for source in sources]
    published = {} if kept is None else kept_fingerprints(kept, without=names)
    absent = [DataSource(name, data="") for name in published]
    cells += plan(absent, rows, ks=ks, seeds=seeds, fingerprints=published)
    outcome = gather(cells, out, failures, kept=kept)
    parts = results_page(outcome, [*names, *published], ks=ks, seeds=seeds)
    for part in parts:
        if isinstance(part, Image):
            write_bytes(page.with_name(part.file), part.content)
    write_text(page, markdown(parts))
    outcome.check()


if __name__ == "__main__":
    results()
