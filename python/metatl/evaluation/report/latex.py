"""Tables and text in LaTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEEDS = "% Needs \\usepackage{booktabs}."

_SIGNS = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "−": "$-$",
        "–": "--",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def escape(text: str) -> str:
    """Escape text, so that LaTeX prints it unchanged."""
    return text.translate(_SIGNS)


def number(text: str) -> str:
    """Format a number or an interval in math mode; escape other text."""
    # Braces remove the space around a relation.
    return f"${text.replace('<', '{<}')}$" if text.startswith(("+", "-", "<", "[")) else escape(text)


def table(
    caption: str, columns: str, header: Sequence[str], blocks: Iterable[Iterable[Sequence[str]]]
) -> str:
    """Lay out a table with the rules of booktabs, as wide as the line.

    Parameters
    ----------
    caption : str
        The caption, in LaTeX.
    columns : str
        Alignment of each column, such as ``"lrr"``.
    header : sequence of str
        Names of the columns, in LaTeX.
    blocks : iterable of iterable of sequence of str
        Rows of cells, in LaTeX, with a rule before each block.
    """
    lines = [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        r"\medskip\footnotesize\setlength{\tabcolsep}{1pt}",
        rf"\begin{{tabular*}}{{\linewidth}}{{@{{\extracolsep{{\fill}}}}{columns}@{{}}}}",
        r"\toprule",
        _row(header),
    ]
    for rows in blocks:
        lines += [r"\midrule", *map(_row, rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular*}", r"\end{table}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
