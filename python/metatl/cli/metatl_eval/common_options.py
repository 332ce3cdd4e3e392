"""The options that all evaluating commands share, and the outputs that they name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metatl.cli.outputs import check_outputs, check_table_names, check_text_names
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
        help="Rank of the held-out item among items with the same score.",
    ),
    click.option(
        "--metrics",
        default=",".join(DEFAULT_METRICS),
        help="MRR, MRR@k, HR@k, NDCG@k, separated by commas.",
    ),
    click.option("--by", multiple=True, metavar="NAME", help="Column to slice the users by; repeatable."),
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
        "--per-user",
        type=click.Path(path_type=Path),
        help="Write every user's rank and metrics: .parquet (for `compare`), .csv, .tsv or .jsonl.",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Threads.  [default: METATL_NUM_THREADS, or all]"
    ),
)


@dataclass(frozen=True)
class CommonOptions:
    """The values of the common options."""

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
        """Refuse to overwrite an input, or to write one file twice."""
        outputs = {
            "--json": self.json_file,
            "--markdown": self.markdown,
            "--latex": self.latex,
            "--per-user": self.per_user,
        }
        check_outputs([*inputs, self.attributes], outputs)
        check_table_names({"--per-user": outputs.pop("--per-user")})
        check_text_names(outputs)

    def arguments(self) -> dict[str, Any]:
        """Give the arguments that all evaluating functions share."""
        return {
            "ties": self.ties,
            "metrics": self.metrics,
            "by": self.by,
            "attributes": _read_attributes(self.attributes),
            "num_threads": self.threads,
        }

    def of_one(self, name: str) -> CommonOptions:
        """Treat the outputs as folders, and name the files of one evaluation in them."""
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
    """Add the common options to a command, which passes them to `CommonOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _read_attributes(path: Path | None) -> pl.DataFrame | None:
    """Read the columns to slice the users by."""
    if path is None:
        return None
    from metatl.data.user_attributes import read_attributes

    return read_attributes(path)


def deliver(evaluation: Evaluation[Any], outputs: CommonOptions) -> None:
    """Write an evaluation to the given files, then to the terminal."""
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
