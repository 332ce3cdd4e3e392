"""`metatl-eval embeddings`: evaluate a model that has a vector for each user and each item."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.errors import Command
from metatl.cli.metatl_eval.common_options import CommonOptions, deliver, evaluation_options
from metatl.metrics.names import DEFAULT_TOP

if TYPE_CHECKING:
    from metatl.models.contract import Similarity


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("candidates", type=click.Path(path_type=Path))
@click.option("--queries", required=True, type=click.Path(path_type=Path), help="(users, d) float32, .npy.")
@click.option("--items", required=True, type=click.Path(path_type=Path), help="(items, d) float32, .npy.")
@click.option(
    "--item-ids",
    required=True,
    type=click.Path(path_type=Path),
    help="Parquet or CSV with item_id, in the order of --items, and optionally count (training rows).",
)
@click.option("--bias", type=click.Path(path_type=Path), help="(items,) float32, .npy: added to scores.")
@click.option(
    "--similarity",
    default="dot",
    type=click.Choice(["dot", "l2", "squared_l2"]),
    help="Inner product, or distance, which counts as a negative score.",
)
@click.option(
    "--top",
    default=DEFAULT_TOP,
    type=click.IntRange(min=0),
    help="Length of the recommended lists; 0 for none.",
)
@click.option("--name", help="Name of the system.  [default: the name of the file of queries]")
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of the bootstrap.")
@evaluation_options
def embeddings(
    candidates: Path,
    queries: Path,
    items: Path,
    item_ids: Path,
    bias: Path | None,
    similarity: Similarity,
    top: int,
    name: str | None,
    seed: int,
    **common: Any,
) -> None:
    """Evaluate a two-tower model on CANDIDATES: among them, and among all items.

    Row i of --queries is the vector of the user in row i of the candidates. Among all items the target is
    compared with every item that the user does not interact with, before or after. `--by` takes
    history_length, item_popularity (if --item-ids has a count) and columns of --attributes.

    \b
    Examples:
      metatl-eval embeddings candidates.parquet --queries q.npy --items e.npy --item-ids ids.parquet
      metatl-eval embeddings candidates.parquet --queries q.npy --items e.npy --item-ids ids.csv \\
          --bias b.npy --similarity l2 --json mine.json
    """  # noqa: D301 (click reads the character)
    from rich.console import Console

    from metatl.cli.progress import users_progress
    from metatl.evaluation.external.evaluate_embeddings import evaluate_embeddings

    options = CommonOptions(**common)
    options.check(candidates, queries, items, item_ids, bias)
    with users_progress(Console(stderr=True)) as on_progress:
        evaluation = evaluate_embeddings(
            candidates,
            queries,
            items,
            item_ids,
            bias=bias,
            similarity=similarity,
            name=name,
            top=top,
            seed=seed,
            **options.arguments(),
            on_progress=on_progress,
        )
    deliver(evaluation, options)
