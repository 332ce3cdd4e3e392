"""`metatl-eval`: rank what new users did next, and report how well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import Command

if TYPE_CHECKING:
    from metatl.metrics import TieRule

DEFAULT_METRICS = "MRR,HR@1,HR@5,HR@10,NDCG@5,NDCG@10"


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="The data that the run was fitted on, if it is not where the run says.")
@click.option(
    "--k", type=click.IntRange(min=1), help="Interactions that a new user shows.  [default: the run's]"
)
@click.option(
    "--candidates",
    default="uni100",
    help="uniN or popN: N negatives, uniform or by popularity, beside the full catalogue; or full alone.",
)
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Seed of candidates and bootstrap.")
@click.option(
    "--ties",
    default="worst",
    type=click.Choice(["worst", "mean", "best"]),
    help="Where the held-out item stands among items with its score.",
)
@click.option("--metrics", default=DEFAULT_METRICS, help="MRR, HR@k, NDCG@k, separated by commas.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the results as JSON.")
@click.option(
    "--per-user", type=click.Path(path_type=Path), help="Write every user's rank and metrics as Parquet."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: METATL_NUM_THREADS, or all]")
@click.option(
    "--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Where the model runs."
)
def main(
    run: Path,
    data: str | None,
    k: int | None,
    candidates: str,
    seed: int,
    ties: TieRule,
    metrics: str,
    out: Path | None,
    per_user: Path | None,
    threads: int | None,
    device: str,
) -> None:
    """Evaluate the run directory RUN on its test users.

    \b
    Examples:
      metatl-eval runs/wines
      metatl-eval runs/wines --candidates pop100 --out results.json
      metatl-eval runs/wines --candidates full --metrics HR@10,NDCG@10 --per-user ranks.parquet
    """  # noqa: D301 (click reads the character)
    from rich.console import Console

    from metatl.evaluation import evaluate_users
    from metatl.files import write_parquet
    from metatl.report import results_table, write_results
    from metatl.runs import load_run

    evaluation = evaluate_users(
        load_run(run, device=device),
        data=data,
        k=k,
        candidates=candidates,
        seed=seed,
        ties=ties,
        metrics=metrics,
        num_threads=threads,
    )
    if per_user is not None:
        write_parquet(per_user, evaluation.per_user)
    if out is not None:
        write_results(out, evaluation.results)
    Console().print(results_table(evaluation.results))


if __name__ == "__main__":
    main()
