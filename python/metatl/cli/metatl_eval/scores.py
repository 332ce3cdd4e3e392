"""`metatl-eval scores`: evaluate the scores that any model gives to candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metatl.cli.errors import Command
from metatl.cli.metatl_eval.common_options import CommonOptions, deliver, evaluation_options


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument(
    "files", nargs=-1, required=True, metavar="[CANDIDATES] SCORES", type=click.Path(path_type=Path)
)
@click.option("--no-candidates", is_flag=True, help="Rank column 0 among the other columns, without checks.")
@click.option(
    "--train",
    type=click.Path(path_type=Path),
    help="Training interactions, as `candidates --train` wrote them: for --by item_popularity.",
)
@click.option("--name", help="Name of the system.  [default: the name of SCORES]")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of the bootstrap.")
@evaluation_options
def scores(
    files: tuple[Path, ...],
    no_candidates: bool,
    train: Path | None,
    name: str | None,
    seed: int,
    **common: Any,
) -> None:
    """Evaluate SCORES that any model gave to the pairs of CANDIDATES.

    SCORES is .npy, .npz, .parquet, .csv or .tsv: floats or integers, a row for each user in the
    order of the candidates' rows, the score of the target first. A table may begin with a user_id, which is
    checked, or hold pairs in any order: user_id, item_id, score. `--by` takes history_length, item_popularity
    (of the target, in quarters, with --train) and columns of --attributes.

    \b
    Examples:
      metatl-eval candidates interactions.csv -o candidates.parquet
      metatl-eval scores candidates.parquet scores.npy
      metatl-eval scores candidates.parquet pairs.csv --per-user mine.parquet --json mine.json
      metatl-eval scores candidates.parquet scores.npy --train train.parquet --by item_popularity
      metatl-eval scores --no-candidates scores.npy
    """  # noqa: D301 (click reads the character)
    if len(files) != (1 if no_candidates else 2):
        expected = "SCORES alone with --no-candidates" if no_candidates else "CANDIDATES and SCORES"
        raise click.UsageError(f"found {len(files)} files, expected {expected}")

    from rich.console import Console

    from metatl import datasets
    from metatl.cli.progress import users_progress
    from metatl.evaluation.external.evaluate_scores import evaluate_scores

    options = CommonOptions(**common)
    options.check(*files, train)
    with users_progress(Console(stderr=True)) as on_progress:
        evaluation = evaluate_scores(
            files[-1],
            None if no_candidates else files[0],
            train=None if train is None else datasets.load(str(train), None),
            name=name,
            seed=seed,
            **options.arguments(),
            on_progress=on_progress,
        )
    deliver(evaluation, options)
