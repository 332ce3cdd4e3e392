"""Options that all ways of evaluating have in common, and what is done with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.outputs import check_outputs
from metatl.metrics.names import DEFAULT_METRICS, TIE_RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from metatl.evaluation.measures import Evaluation
    from metatl.metrics.names import TieRule

_OPTIONS = (
    click.option(
        "--ties",
        default="worst",
        type=click.Choice(TIE_RULES),
        help="Where the held-out item stands among items with its score.",
    ),
    click.option(
        "--metrics",
        default=",".join(DEFAULT_METRICS),
        help="MRR, MRR@k, HR@k, NDCG@k, separated by commas.",
    ),
    click.option("--by", multiple=True, metavar="NAME", help="Slice the users by this; can be repeated."),
    click.option(
        "--attributes",
        type=click.Path(path_type=Path),
        help="Parquet or CSV with user_id and columns to slice by.",
    ),
    click.option(
        "--json", "--out", "json_file", type=click.Path(path_type=Path), help="Write the results as JSON."
    ),
    click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables as Markdown."),
    click.option("--latex", type=click.Path(path_type=Path), help="Write the tables as LaTeX (booktabs)."),
    click.option(
        "--per-user", type=click.Path(path_type=Path), help="Write every user's rank and metrics as Parquet."
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads.  [default: METATL_NUM_THREADS, or all]"
    ),
)


@dataclass(frozen=True)
class CommonOptions:
    """What the common options say."""

    ties: TieRule
    metrics: str
    by: tuple[str, ...]
    attributes: Path | None
    json_file: Path | None
    markdown: Path | None
    latex: Path | None
    per_user: Path | None
    threads: int | None

    def check(self, *inputs: Path | str | None) -> None:
        """Refuse to write over what the command reads, or twice to one file."""
        outputs = {
            "--json": self.json_file,
            "--markdown": self.markdown,
            "--latex": self.latex,
            "--per-user": self.per_user,
        }
        check_outputs([*inputs, self.attributes], outputs)

    def arguments(self) -> dict[str, Any]:
        """Give what every function that evaluates takes."""
        return {
            "ties": self.ties,
            "metrics": self.metrics,
            "by": self.by,
            "attributes": _read_attributes(self.attributes),
            "num_threads": self.threads,
        }

    def of_one(self, name: str) -> CommonOptions:
        """Take the files to write as folders, and name the files of one of several evaluations in them."""
        from metatl.exceptions import ConfigError

        def inside(option: str, folder: Path | None, ending: str) -> Path | None:
            if folder is None:
                return None
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise ConfigError(
                    f"{option}: found the file {folder}, expected a folder: several runs write a file each"
                ) from None
            return folder / f"{name}.{ending}"

        return replace(
            self,
            json_file=inside("--json", self.json_file, "json"),
            markdown=inside("--markdown", self.markdown, "md"),
            latex=inside("--latex", self.latex, "tex"),
            per_user=inside("--per-user", self.per_user, "parquet"),
        )


def evaluation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the common options; it takes them as keywords, for `CommonOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _read_attributes(path: Path | None) -> pl.DataFrame | None:
    """Read what is known of users."""
    if path is None:
        return None
    from metatl.data.user_attributes import read_attributes

    return read_attributes(path)


def deliver(evaluation: Evaluation[Any], outputs: CommonOptions) -> None:
    """Write an evaluation to the files that were asked for, then to the terminal."""
    from rich.console import Console

    from metatl.common.files import write_text
    from metatl.evaluation.report.results import write_results
    from metatl.evaluation.report.tables import latex, markdown, terminal

    results = evaluation.results
    if outputs.per_user is not None:
        evaluation.write_per_user(outputs.per_user)
    if outputs.json_file is not None:
        write_results(outputs.json_file, results)
    if outputs.markdown is not None:
        write_text(outputs.markdown, markdown(results))
    if outputs.latex is not None:
        write_text(outputs.latex, latex(results))
    Console().print(terminal(results))
