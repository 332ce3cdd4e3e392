"""The files of a `reproduce` command: a report as Markdown, JSON, an HTML page and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metatl.common.files import write_json, write_text
from metatl.evaluation.report.pages import html_page, markdown, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from metatl.evaluation.report.pages import PagePart
    from metatl.experiments.comparison import Score

SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class Report:
    """A report before it is written.

    Attributes
    ----------
    name : str
        Stem of the names of its files, as in `table2.md`.
    parts : sequence of PagePart
        The text, the tables and the images.
    data : dict of str to Any
        The figures, as JSON types.
    pictures : dict of str to bytes
        Name of a file to its bytes: the pictures of the text, and the same pictures in other formats.
    """

    name: str
    parts: Sequence[PagePart]
    data: dict[str, Any]
    pictures: dict[str, bytes]


def write_report(out: Path, report: Report) -> list[Path]:
    """Write a report's files.

    Parameters
    ----------
    out : Path
        Folder to write to; made if it does not exist.
    report : Report
        The report.

    Returns
    -------
    list of Path
        The files.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, content in report.pictures.items():
        write_bytes(out / name, content)
    write_json(out / f"{report.name}.json", report.data)
    write_text(out / f"{report.name}.html", html_page(report.parts))
    write_text(out / f"{report.name}.md", markdown(report.parts))
    names = [*(f"{report.name}.{end}" for end in ("md", "json", "html")), *report.pictures]
    return [out / name for name in names]


def with_interval(score: Score) -> str:
    """Format a mean with its interval: ± over seeds, or the ends over users if there is one seed."""
    if score.seeds == 1:
        return f"{score.mean:.4f} [{score.low:.4f}, {score.high:.4f}]"
    return f"{score.mean:.4f} ± {score.half:.4f}"


def marked(texts: Sequence[str], values: Sequence[float]) -> list[str]:
    """Set the best value of a column in bold and mark the second best with †; equal values share it."""
    order = sorted(set(values), reverse=True)
    marks = {order[0]: "**{}**"} if order else {}
    if len(order) > 1:
        marks[order[1]] = "{}†"
    return [marks.get(value, "{}").format(text) for text, value in zip(texts, values, strict=True)]


def p_value(value: float) -> str:
    """Format a p-value."""
    return "< .0001" if value < 1e-4 else f"{value:.4f}"  # noqa: PLR2004 (what four digits can show)


def interval_note(seeds: int) -> str:
    """Describe the intervals of a report."""
    if seeds == 1:
        return "One seed; intervals are 95 % bootstrap intervals over the test users."
    return f"Means over {seeds} seeds with 95 % t intervals over them."


def listed(names: Sequence[str], conjunction: str) -> str:
    """Join names with commas and a conjunction: `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {conjunction} {names[-1]}"
