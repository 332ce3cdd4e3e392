"""Tables as LaTeX: they are compiled, and a reader finds the text as it was."""

from __future__ import annotations

import pytest

from latex_page import compiled, needs_latex
from metatl.evaluation.report.latex import NEEDS, escape, number, table


def test_every_sign_is_escaped():
    assert escape("a\\b&c%d$e#f_g{h}i~j^k<l>m|n−o–p") == (
        r"a\textbackslash{}b\&c\%d\$e\#f\_g\{h\}i\textasciitilde{}j\textasciicircum{}k"
        r"\textless{}l\textgreater{}m\textbar{}n$-$o--p"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-0.12", "$-0.12$"),
        ("+.3", "$+.3$"),
        ("[-1, 2]", "$[-1, 2]$"),
        ("<.0001", "${<}.0001$"),
        ("0.5", "0.5"),
        ("–", "--"),
        ("", ""),
    ],
)
def test_signs_of_numbers_are_those_of_mathematics(text, expected):
    assert number(text) == expected


def test_a_table_has_a_rule_before_each_block():
    text = table("c", "lr", ("a", "b"), [[("1", "2")], [("3", "4"), ("5", "6")]])
    rows = [line for line in text.splitlines() if line.endswith((r"\\", "rule"))]
    expected = [r"\toprule", r"a & b \\", r"\midrule", r"1 & 2 \\", r"\midrule", r"3 & 4 \\", r"5 & 6 \\"]
    assert rows == [*expected, r"\bottomrule"]


@needs_latex
def test_any_sign_compiles(tmp_path):
    signs = "".join(chr(code) for code in range(32, 127)) + "−–é"
    said = compiled("\n".join([NEEDS, table(escape(signs), "l", ("",), [[(escape(signs[:60]),)]])]), tmp_path)
    assert "Output written" in said
    assert "Missing character" not in said
