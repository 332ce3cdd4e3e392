"""Tables of an evaluation: every figure is where its row and its column say."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from latex_page import compiled, needs_latex
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.evaluation.report.results import SourceResults
from metatl.evaluation.report.tables import latex, markdown, narrow, remarks, tables, terminal


@pytest.fixture(scope="module")
def results():
    scores = np.random.default_rng(0).integers(0, 30, (200, 21)).astype(np.float32)
    attributes = pl.DataFrame({"user_id": np.arange(200), "a_b": ["x & y", "50 %"] * 100})
    found = evaluate_scores(scores, name="my_model", by=["a_b"], attributes=attributes).results
    content = found.model_dump()
    content["metrics"]["full"] = {"MRR": {"value": 0.01, "low": 0.009, "high": 0.012}}
    content["lists"] = {"n": 10, "coverage": 0.25, "popularity": 30.0, "popularity_bias": 1.5}
    content["users"]["left_out"] = {"rare items": 12, "nobody": 0}
    return SourceResults.model_validate(content)


def test_cells_are_the_figures(results):
    (title, metrics), (sliced, slices) = tables(results)
    assert title == "my_model, 200 users [95 % intervals]"
    assert metrics.header == ("metric", "candidates", "all items")
    rows = {row[0]: row[1:] for row in metrics.rows}
    found = results.metrics.sampled["MRR"]
    assert rows["MRR"] == (
        f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]",
        "0.0100 [0.0090, 0.0120]",
    )
    assert rows["HR@1"][1] == ""
    found = results.metrics.sampled["mean rank"]
    assert rows["mean rank"][0] == f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"
    assert sliced == "By a_b: candidates"
    assert [row[:2] for row in slices.rows] == [("50 %", "100"), ("x & y", "100")]


def test_remarks_tell_ties_lists_users_and_notes(results):
    text = "\n".join(remarks(results))
    for part in (
        f"Ties, candidates: {results.ties['sampled'].share:.2%} of targets",
        "Top 10: 25.0% of the catalogue; items are 1.50 times as popular",
        "Users: 200 evaluated; left out: 12 rare items.",
        "These were not checked",
        "rank 0.",
    ):
        assert part in text
    assert "0 nobody" not in text


def test_the_three_forms_hold_the_same_cells(results):
    output = io.StringIO()
    Console(width=250, file=output).print(terminal(results))
    forms = [output.getvalue(), markdown(results), latex(results)]
    for _, table in tables(results):
        for row in table.rows:
            for cell in row[2:]:
                assert all(part in forms[0] for part in narrow(cell).split(" [")), cell
                assert cell in forms[1], cell
                assert all(part in forms[2] for part in cell.rstrip("]").split(" [")), cell
    assert "my_model, 200 users [95 % intervals]" in forms[0]
    assert "## my_model, 200 users [95 % intervals]" in forms[1]
    assert r"my\_model, 200 users [95 \% intervals]" in forms[2]
    assert r"x \& y & 100 & " in forms[2]
    assert r"50 \% & 100 & " in forms[2]


@needs_latex
def test_the_tables_compile_and_fit_into_a_column(results, tmp_path):
    said = compiled(latex(results), tmp_path)
    assert "Output written" in said
    assert "Overfull" not in said
