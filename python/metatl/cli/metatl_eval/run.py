"""`metatl-eval run`: evaluate runs on their test users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.errors import Command
from metatl.cli.metatl_eval.common_options import CommonOptions, deliver, evaluation_options
from metatl.cli.options import device_option, item_table_option
from metatl.metrics.names import DEFAULT_TOP

if TYPE_CHECKING:
    from metatl.ranking.item_tables import ItemFormat


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--data", help="The data that the run was fitted on, if it is not where the run says.")
@click.option(
    "--k", type=click.IntRange(min=1), help="Interactions in a new user's history.  [default: the run's]"
)
@click.option(
    "--candidates",
    default="uni100",
    help="uniN or popN: N negatives, uniform or by popularity, and all items; full: all items only.",
)
@click.option(
    "--top",
    default=DEFAULT_TOP,
    type=click.IntRange(min=0),
    help="Length of the recommended lists; 0 for none.",
)
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of candidates and bootstrap.")
@device_option
@item_table_option
@evaluation_options
def run(
    runs: tuple[Path, ...],
    data: str | None,
    k: int | None,
    candidates: str,
    top: int,
    seed: int,
    device: str,
    item_table: ItemFormat,
    **common: Any,
) -> None:
    """Evaluate run directories on the test users of their split.

    With several runs the outputs are folders, which get a file for each run. `--by` takes
    history_length, item_popularity (of the held-out item, in quarters) and columns of --attributes.

    \b
    Examples:
      metatl-eval run runs/wines
      metatl-eval run runs/wines --candidates pop100 --json results.json
      metatl-eval run runs/wines --candidates full --metrics HR@10,NDCG@10 --per-user ranks.parquet
      metatl-eval run runs/knn runs/metatl --per-user ranks --by item_popularity
    """  # noqa: D301 (click reads the character)
    names = [path.name or path.resolve().name for path in runs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise click.UsageError(f"two runs are called {repeated!r}; their files would have one name")

    from metatl.evaluation.evaluate_runs import evaluate
    from metatl.runs.run_directory import load_run

    options = CommonOptions(**common)
    for path, name in zip(runs, names, strict=True):
        written = options if len(runs) == 1 else options.of_one(name)
        written.check(data, *runs)
        evaluation = evaluate(
            load_run(path, device=device),
            candidates,
            data=data,
            k=k,
            seed=seed,
            top=top,
            item_table=item_table,
            **options.arguments(),
        )
        deliver(evaluation, written)
