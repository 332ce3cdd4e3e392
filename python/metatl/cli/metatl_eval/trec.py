"""`metatl-eval trec`: evaluate ranked lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metatl.cli.errors import Command
from metatl.cli.metatl_eval.common_options import CommonOptions, deliver, evaluation_options


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--run",
    "lists",
    required=True,
    type=click.Path(path_type=Path),
    help="TREC run, or Parquet with user_id, item_id and score or rank.",
)
@click.option(
    "--qrels",
    "targets",
    required=True,
    type=click.Path(path_type=Path),
    help="TREC qrels with one relevant item per user, or Parquet with user_id and target, as candidates are.",
)
@click.option("--name", help="Name of the system.  [default: the name of the run's file]")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of the bootstrap.")
@evaluation_options
def trec(
    lists: Path,
    targets: Path,
    name: str | None,
    seed: int,
    **common: Any,
) -> None:
    """Evaluate ranked lists by the rank of the item that each user chose.

    Items are ranked by score, as in trec_eval, and items with equal scores are ties. A target that is not in
    its list scores 0, and so does a user without a list. `--by` takes columns of --attributes.

    \b
    Examples:
      metatl-eval trec --run run.txt --qrels qrels.txt
      metatl-eval trec --run lists.parquet --qrels candidates.parquet --metrics HR@10,MRR@10
    """  # noqa: D301 (click reads the character)
    from metatl.evaluation.external.evaluate_lists import evaluate_lists

    options = CommonOptions(**common)
    options.check(lists, targets)
    evaluation = evaluate_lists(
        lists,
        targets,
        name=name,
        seed=seed,
        **options.arguments(),
    )
    deliver(evaluation, options)
