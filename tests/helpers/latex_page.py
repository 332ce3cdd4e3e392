"""A LaTeX page to compile tables in, if LaTeX is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


def compiled(tables: str, folder) -> str:
    """Compile tables in a page of one column, and return LaTeX's output."""
    lines = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    text = "\n".join([*lines, tables, r"\end{document}"])
    (folder / "page.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
