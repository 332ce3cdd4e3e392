"""Write a report, a list of parts, as Markdown or as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from metatl.common.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `**bold**` and `` `code` `` are formatted, also in lists and tables."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of points."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column is text, the others are numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Image:
    """A PNG image.

    Attributes
    ----------
    file : str
        Name of the file, in the folder of the page.
    content : bytes
        Its bytes.
    description : str
        Text that describes the image.
    """

    file: str
    content: bytes
    description: str


PagePart: TypeAlias = "Heading | Text | Points | Table | Image"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
"""


def markdown(parts: Sequence[PagePart]) -> str:
    """Write a report as Markdown."""
    return "\n\n".join(_markdown(part) for part in parts) + "\n"


def html_page(parts: Sequence[PagePart]) -> str:
    """Write a report as an HTML page with its images inside."""
    title = next((part.text for part in parts if isinstance(part, Heading)), "metatl")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(re.sub('[`*]', '', title))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(_html(part) for part in parts)
        + "\n</body>\n</html>\n"
    )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file in one step."""
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def _markdown(part: PagePart) -> str:
    if isinstance(part, Heading):
        return f"{'#' * part.level} {part.text}"
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Points):
        return "\n".join(f"- {item}" for item in part.items)
    if isinstance(part, Image):
        return f"![{part.description}]({part.file})"
    lines = (part.header, ("---",) + ("---:",) * (len(part.header) - 1), *part.rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html(part: PagePart) -> str:
    if isinstance(part, Heading):
        return f"<h{part.level}>{_inline(part.text)}</h{part.level}>"
    if isinstance(part, Text):
        return f"<p>{_inline(part.text)}</p>"
    if isinstance(part, Points):
        return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in part.items) + "\n</ul>"
    if isinstance(part, Image):
        data = base64.b64encode(part.content).decode()
        return f'<img alt="{html.escape(part.description)}" src="data:image/png;base64,{data}">'
    rows = [_html_row("th", part.header), *(_html_row("td", row) for row in part.rows)]
    return '<div class="table">\n<table>\n' + "\n".join(rows) + "\n</table>\n</div>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells) + "</tr>"


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)
