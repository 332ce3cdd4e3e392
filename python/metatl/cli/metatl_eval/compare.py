"""`metatl-eval compare`: compare systems over the same users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from metatl.cli.errors import Command
from metatl.cli.outputs import check_outputs, check_table_names, check_text_names

if TYPE_CHECKING:
    from metatl.evaluation.comparison.paired_users import PerUser


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metrics", help="MRR, HR@k, NDCG@k, separated by commas.  [default: those that all files have]"
)
@click.option(
    "--ranking",
    default="both",
    type=click.Choice(["sampled", "full", "both"]),
    help="Among sampled candidates, among all items, or every ranking that all files have.",
)
@click.option(
    "--resamples",
    default=10_000,
    type=click.IntRange(min=1),
    help="Resamples of bootstrap and randomisation test, whose least p-value is 1 / (1 + resamples).",
)
@click.option("--seed", default=0, type=click.IntRange(0, 2**64 - 1), help="Seed of both.")
@click.option("--json", type=click.Path(path_type=Path), help="Write the comparison as JSON.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables as Markdown.")
@click.option("--latex", type=click.Path(path_type=Path), help="Write the tables as LaTeX, for booktabs.")
@click.option(
    "--users",
    type=click.Path(path_type=Path),
    help="Write the gain or loss of every user: .parquet, .csv, .tsv or .jsonl.",
)
@click.option(
    "--top",
    default=0,
    type=click.IntRange(min=0),
    help="Number of users to show who gain most, and who lose most, by the first metric.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the differences: a .png or .svg file.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads.  [default: METATL_NUM_THREADS, or all]")
def compare(
    files: tuple[Path, ...],
    metrics: str | None,
    ranking: str,
    resamples: int,
    seed: int,
    json: Path | None,
    markdown: Path | None,
    latex: Path | None,
    users: Path | None,
    top: int,
    plot: Path | None,
    threads: int | None,
) -> None:
    """Compare systems, user by user.

    FILES are two or more that `metatl-eval RUN --per-user FILE` wrote, of the same users and candidates. The
    first is the baseline; each of the others is compared with it.

    \b
    Examples:
      metatl-eval compare knn.parquet metatl.parquet
      metatl-eval compare knn.parquet sasrec.parquet metatl.parquet --metrics MRR --plot mrr.svg
      metatl-eval compare knn.parquet metatl.parquet --ranking full --latex table.tex --json table.json
      metatl-eval compare knn.parquet metatl.parquet --top 5 --users differences.parquet
    """  # noqa: D301 (click reads the character)
    from rich.console import Console

    from metatl.common.files import write_table, write_text
    from metatl.evaluation.comparison.paired_comparison import compare_pairs, write_comparison
    from metatl.evaluation.comparison.paired_users import pair_users, user_differences
    from metatl.evaluation.comparison.tables import (
        comparison_latex,
        comparison_markdown,
        comparison_table,
        extremes_table,
    )
    from metatl.evaluation.per_user_files import read_per_user

    outputs = {"--json": json, "--markdown": markdown, "--latex": latex, "--users": users, "--plot": plot}
    check_outputs(files, outputs)
    check_table_names({"--users": users})
    check_text_names({"--json": json, "--markdown": markdown, "--latex": latex})
    if plot is not None:
        from metatl.evaluation.comparison.plot import check_plot_file, write_plot

        check_plot_file(plot)
    evaluations = _name_apart([read_per_user(file) for file in files], files)
    paired = pair_users(evaluations, metrics=metrics, ranking=None if ranking == "both" else ranking)
    report = compare_pairs(paired, resamples=resamples, seed=seed, num_threads=threads)
    if json is not None:
        write_comparison(json, report)
    if markdown is not None:
        write_text(markdown, comparison_markdown(report))
    if latex is not None:
        write_text(latex, comparison_latex(report))
    if users is not None:
        write_table(users, user_differences(paired))
    if plot is not None:
        write_plot(plot, report)
    console = Console()
    console.print(comparison_table(report))
    if top > 0:
        console.print(extremes_table(user_differences(paired), paired.metrics[0], count=top))


def _name_apart(evaluations: list[PerUser], files: tuple[Path, ...]) -> list[PerUser]:
    """Add the file to the names of systems that are equal, as those of two runs of one model."""
    names = [record.system for record, _ in evaluations]
    return [
        (
            record.model_copy(update={"system": f"{record.system} ({file})"})
            if names.count(record.system) > 1
            else record,
            frame,
        )
        for (record, frame), file in zip(evaluations, files, strict=True)
    ]


if __name__ == "__main__":
    compare()
