"""Systems against a baseline: pairs of users, every figure of the report, tables and pictures."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from rich.console import Console
from scipy import stats

from latex_page import compiled, needs_latex
from metatl.evaluation.comparison.paired_comparison import (
    ComparisonReport,
    compare_users,
    comparison_schema,
    write_comparison,
)
from metatl.evaluation.comparison.paired_users import extreme_users, pair_users, user_differences
from metatl.evaluation.comparison.plot import draw_comparison, write_plot
from metatl.evaluation.comparison.tables import (
    comparison_latex,
    comparison_markdown,
    comparison_table,
    extremes_table,
)
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError
from per_user_data import METRICS, frame_of, record_of, system

RESAMPLES = 300
KINDS = ("t", "wilcoxon", "randomisation")


@pytest.fixture(scope="module")
def evaluations():
    return [system("knn", 0), system("sas_rec", 1), system("metatl", 2)]


@pytest.fixture(scope="module")
def report(evaluations):
    return compare_users(evaluations, resamples=RESAMPLES, seed=4)


def column(evaluation, ranking, metric):
    """A metric in the order of the users' ids."""
    _, frame = evaluation
    return frame.filter(pl.col("ranking") == ranking).sort("user_id")[metric].to_numpy()


def test_every_figure_is_that_of_scipy(evaluations, report):
    assert (report.baseline, report.systems) == ("knn", ("sas_rec", "metatl"))
    assert (report.rankings, report.metrics) == (("sampled", "full"), tuple(METRICS))
    keys = [(found.system, found.ranking, found.metric) for found in report.differences]
    assert keys == [
        (name, ranking, metric)
        for name in ("sas_rec", "metatl")
        for ranking in ("sampled", "full")
        for metric in METRICS
    ]
    assert report.tests == len(keys) == 16
    by_name = {record.system: (record, frame) for record, frame in evaluations}
    for found in report.differences:
        mine = column(by_name[found.system], found.ranking, found.metric)
        base = column(by_name["knn"], found.ranking, found.metric)
        differences = mine - base
        assert found.users == 40
        assert (found.mean, found.baseline_mean) == pytest.approx((mine.mean(), base.mean()))
        assert found.difference == pytest.approx(differences.mean())
        assert found.low <= found.difference <= found.high
        assert found.t.p == pytest.approx(stats.ttest_rel(mine, base).pvalue)
        assert found.wilcoxon.p == pytest.approx(stats.wilcoxon(differences, zero_method="pratt").pvalue)
        exact = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=2_000, rng=0
        ).pvalue
        assert found.randomisation.p == pytest.approx(exact, abs=0.13)
        assert found.randomisation.p * (RESAMPLES + 1) == pytest.approx(
            round(found.randomisation.p * (RESAMPLES + 1))
        )
        assert found.effect_size == pytest.approx(differences.mean() / differences.std(ddof=1))
        assert (found.wins, found.ties, found.losses) == pytest.approx(
            (np.mean(mine > base), np.mean(mine == base), np.mean(mine < base))
        )


def test_each_kind_of_test_is_corrected_over_the_whole_report(report):
    for kind in KINDS:
        tests = [getattr(found, kind) for found in report.differences]
        p_values = np.array([test.p for test in tests])
        expected = stats.false_discovery_control(p_values, method="bh")
        assert [test.benjamini_hochberg for test in tests] == pytest.approx(expected)
        order = np.argsort(p_values, kind="stable")
        steps = np.maximum.accumulate(p_values[order] * np.arange(len(tests), 0, -1)).clip(max=1)
        assert np.array([test.holm for test in tests])[order] == pytest.approx(steps)


def test_neither_rows_nor_threads_change_a_byte(evaluations, report):
    shuffled = [(record, frame.sample(fraction=1, shuffle=True, seed=3)) for record, frame in evaluations]
    for threads in (1, 2, 3, 8):
        again = compare_users(shuffled, resamples=RESAMPLES, seed=4, num_threads=threads)
        assert again.model_dump_json() == report.model_dump_json()
    assert compare_users(evaluations, resamples=RESAMPLES, seed=5) != report


def test_a_choice_of_metrics_and_ranking(evaluations):
    report = compare_users(evaluations, metrics="ndcg@10,MRR", ranking="full", resamples=9)
    assert (report.rankings, report.metrics) == (("full",), ("NDCG@10", "MRR"))
    assert report.tests == 4


def test_only_what_all_have_is_compared():
    one = record_of("one", metrics=["MRR", "HR@1"]), frame_of({"sampled": [1, 2], "full": [3, 4]})
    frame = frame_of({"full": [4, 5]}, metrics=["HR@10", "MRR"])
    two = record_of("two", metrics=["HR@10", "MRR"], candidates_sha256=None), frame
    report = compare_users([one, two], resamples=9)
    # In the full catalogue there are no candidates to be different.
    assert (report.rankings, report.metrics) == (("full",), ("MRR",))


def test_systems_that_do_not_differ_and_ones_that_always_do():
    base, same = frame_of({"full": [3, 0, 7]}), frame_of({"full": [3, 0, 7]})
    better = base.with_columns(MRR=pl.col("MRR") + 0.5)
    one, two = record_of("one", metrics=["MRR"]), record_of("two", metrics=["MRR"])
    found = compare_users([(one, base), (two, same)], resamples=99).differences[0]
    assert (found.difference, found.low, found.high, found.effect_size) == (0, 0, 0, 0)
    assert [getattr(found, kind).p for kind in KINDS] == [1, 1, 1]
    assert (found.wins, found.ties, found.losses) == (0, 1, 0)
    found = compare_users([(one, base), (two, better)], resamples=99).differences[0]
    assert found.difference == pytest.approx(0.5)
    assert (found.wins, found.ties, found.losses) == (1, 0, 0)
    # All three the same way: one in four of the flips is as far from 0.
    assert found.wilcoxon.p == pytest.approx(1 / 4)
    assert found.randomisation.p == pytest.approx(1 / 4, abs=0.15)


def without(evaluation, *users):
    record, frame = evaluation
    return record, frame.filter(~pl.col("user_id").is_in(users))


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        (lambda other: without(other, "u3", "u4"), {}, ["2 users only in knn", "0 only in new", "'sampled'"]),
        (lambda other: (other[0], other[1].with_columns(user_id=pl.lit(1, pl.Int64))), {}, ["users only in"]),
        (lambda other: (record_of("new", ties="mean"), other[1]), {}, ["tie rules worst and mean", "--ties"]),
        (
            lambda other: (record_of("new", candidates_sha256="ef" * 32), other[1]),
            {},
            ["abababababab and efefefefefef", "full ranking alone"],
        ),
        (lambda other: (record_of("new", candidates_sha256=None), other[1]), {}, ["unknown (SHA-256)"]),
        (
            lambda other: (record_of("new", dataset_fingerprint="ef" * 32), other[1]),
            {"ranking": "full"},
            ["cdcdcdcdcdcd and efefefefefef"],
        ),
        (
            lambda other: (record_of("new", split_sha256="ef" * 32), other[1]),
            {"ranking": "full"},
            ["121212121212 and efefefefefef", "the same K and split"],
        ),
        (lambda other: (other[0], other[1][:40]), {"ranking": "full"}, ["knn has full, sampled", "new has"]),
        (lambda other: (other[0], other[1][:0]), {}, ["new has none", "a ranking that all have"]),
        (lambda other: other, {"metrics": "HR@7"}, ["knn: found no metric 'HR@7'", "evaluate again"]),
        (lambda other: (record_of("new", metrics=[]), other[1]), {}, ["no metric that all"]),
    ],
)
def test_what_is_no_pair_is_an_error(change, options, parts):
    other = change((record_of("new"), system("new", 1)[1]))
    with pytest.raises(DataError) as caught:
        compare_users([system("knn", 0), other], resamples=9, **options)
    for part in parts:
        assert part in str(caught.value)


def test_the_same_candidates_are_not_asked_for_where_none_are_ranked():
    other = record_of("new", candidates_sha256="ef" * 32), system("new", 1)[1]
    assert compare_users([system("knn", 0), other], resamples=9, ranking="full").rankings == ("full",)


def test_a_split_that_nobody_knows_is_taken_for_the_same():
    other = record_of("new", split_sha256=None), system("new", 1)[1]
    assert compare_users([system("knn", 0), other], resamples=9).systems == ("new",)


def test_users_of_both_sides_are_counted():
    one = without(system("knn", 0), "u1", "u2", "u3")
    two = without(system("new", 1), "u3", "u4")
    with pytest.raises(DataError, match=r"found 1 users only in knn and 2 only in new"):
        compare_users([one, two], resamples=9)


def test_arguments_out_of_range_are_named(evaluations):
    with pytest.raises(InvalidArgumentError, match="evaluations: found 1, expected at least 2"):
        compare_users(evaluations[:1])
    with pytest.raises(InvalidArgumentError, match="knn, knn"):
        compare_users([evaluations[0], evaluations[0]])
    with pytest.raises(InvalidArgumentError, match="resamples: found 0"):
        compare_users(evaluations, resamples=0)
    with pytest.raises(InvalidArgumentError, match=r"resamples: found 9\.5, expected a whole number"):
        compare_users(evaluations, resamples=9.5)
    with pytest.raises(InvalidArgumentError, match="ranking: found 'best'"):
        compare_users(evaluations, ranking="best")
    with pytest.raises(ConfigError, match="unknown metric 'MAP'"):
        compare_users(evaluations, metrics=["MAP"])
    with pytest.raises(DataError, match="found 1 users in the ranking 'full', expected at least 2"):
        compare_users([(record, frame.filter(pl.col("user_id") == "u1")) for record, frame in evaluations],
                      ranking="full")  # fmt: skip


def test_files_are_no_evaluations(evaluations):
    with pytest.raises(InvalidArgumentError, match=r"^evaluations\[0\]: found str, .*read_per_user\(path\)"):
        compare_users(["knn.parquet", "metatl.parquet"])
    with pytest.raises(InvalidArgumentError, match=r"^evaluations: found str, .*read_per_user\(path\)"):
        compare_users("knn.parquet")
    with pytest.raises(InvalidArgumentError, match=r"^evaluations\[1\]: found tuple, "):
        compare_users([evaluations[0], evaluations[1][::-1]])


def test_the_schema_file_is_that_of_the_code():
    path = Path(__file__).parents[3] / "docs" / "comparison.schema.json"
    assert path.read_text(encoding="utf-8") == comparison_schema()


def test_json_fits_its_schema_and_is_read_back(report, tmp_path):
    path = tmp_path / "comparison.json"
    write_comparison(path, report)
    content = path.read_text(encoding="utf-8")
    jsonschema.validate(json.loads(content), json.loads(comparison_schema()))
    assert ComparisonReport.model_validate_json(content) == report


def test_differences_of_users_by_hand():
    one = record_of("one", metrics=["MRR"]), frame_of({"full": [0, 1, 3, 1]})
    two = record_of("two", metrics=["MRR"]), frame_of({"full": [1, 1, 1, 0]})[::-1]
    differences = user_differences(pair_users([one, two]))
    expected = pl.DataFrame(
        {
            "user_id": ["u0", "u1", "u2", "u3"],
            "system": ["two"] * 4,
            "ranking": ["full"] * 4,
            "MRR": [-0.5, 0.0, 0.25, 0.5],
        }
    )
    assert_frame_equal(differences, expected)
    gainers, losers = extreme_users(differences, "MRR", count=1)
    assert gainers.rows() == [("u3", "two", "full", 0.5)]
    assert losers.rows() == [("u0", "two", "full", -0.5)]
    gainers, losers = extreme_users(differences, "MRR")
    assert gainers["user_id"].to_list() == ["u3", "u2"]
    assert losers["user_id"].to_list() == ["u0"]
    with pytest.raises(InvalidArgumentError, match="metric: found 'ranking', expected one of MRR"):
        extreme_users(differences, "ranking")


@given(st.lists(st.integers(-9, 9), max_size=12), st.integers(0, 5))
def test_extremes_are_the_ends_of_the_sorted_list(changes, count):
    differences = pl.DataFrame(
        {
            "user_id": range(len(changes)),
            "system": ["new"] * len(changes),
            "ranking": ["full"] * len(changes),
            "MRR": changes,
        },
        schema_overrides={"MRR": pl.Float64},
    )
    gainers, losers = extreme_users(differences, "MRR", count=count)
    gains = sorted((-change, user) for user, change in enumerate(changes) if change > 0)[:count]
    losses = sorted((change, user) for user, change in enumerate(changes) if change < 0)[:count]
    assert gainers["user_id"].to_list() == [user for _, user in gains]
    assert losers["user_id"].to_list() == [user for _, user in losses]


def shown(renderable):
    console = Console(file=io.StringIO(), width=80)
    console.print(renderable)
    return console.file.getvalue()


def test_the_terminal_shows_every_figure_in_80_columns(report):
    text = shown(comparison_table(report))
    assert "…" not in text
    for name in report.systems:
        assert f"{name} against knn among sampled candidates, 40 users" in text
        assert f"{name} against knn among all items, 40 users" in text
    for found in report.differences:
        for number in (found.mean, found.baseline_mean, found.t.holm, found.randomisation.holm):
            assert f"{number:.4f}".removeprefix("0") in text
        assert f"{found.difference:+.4f}".replace("0.", ".") in text
    assert "16 tests" in " ".join(text.split())


def test_the_terminal_shows_who_gains_and_loses(evaluations):
    differences = user_differences(pair_users(evaluations))
    text = shown(extremes_table(differences, "MRR", count=2))
    for part in extreme_users(differences, "MRR", count=2):
        for user, change in part.select("user_id", "MRR").rows():
            assert f"{change:+.4f}" in text
            assert user in text


def test_markdown_has_a_row_for_each_difference(report):
    text = comparison_markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # A header and its rule for each of the two rankings.
    assert len(rows) == len(report.differences) + 4
    assert len({row.count("|") for row in rows}) == 1
    by_ranking = [found for name in report.rankings for found in report.differences if found.ranking == name]
    for row, found in zip([row for row in rows if "[" in row], by_ranking, strict=True):
        means = f"{found.baseline_mean:.4f} | {found.mean:.4f} | {found.difference:+.4f}"
        assert row.startswith(f"| {found.system} | {found.metric} | {means}")
        assert f"[{found.low:+.4f}, {found.high:+.4f}]" in row


def test_latex_is_balanced_and_escaped(report):
    text = comparison_latex(report)
    assert text.count(r"\begin{") == text.count(r"\end{") == 4
    assert text.count("{") == text.count("}")
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"\multicolumn{10}{@{}l@{}}{sas\_rec} \\" in text
    assert "−" not in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == len(report.differences) + 2
    assert {len(line.replace(r"\&", "").split("&")) for line in rows} == {len("lrrrrrrrrr")}
    assert r"lrrrrrrrrr@{}}" in text
    by_ranking = [found for name in report.rankings for found in report.differences if found.ranking == name]
    for row, found in zip([row for row in rows if "[" in row], by_ranking, strict=True):
        assert row.startswith(f"{found.metric} & {found.baseline_mean:.4f} & ".replace(" 0.", " ."))


@needs_latex
def test_the_tables_compile_and_fit_into_a_column(report, tmp_path):
    said = compiled(comparison_latex(report), tmp_path)
    assert "Output written" in said
    assert "Overfull" not in said


def test_tiny_p_values_are_bounded():
    base = frame_of({"full": [9] * 30})
    better = frame_of({"full": [place % 3 for place in range(30)]})
    one, two = record_of("one", metrics=["MRR"]), record_of("two", metrics=["MRR"])
    report = compare_users([(one, base), (two, better)], resamples=9)
    assert "<0.0001" in comparison_markdown(report)
    assert "${<}.0001$" in comparison_latex(report)
    assert "0.0000" not in comparison_markdown(report)


def test_the_picture_shows_the_figures(report):
    figure = draw_comparison(report)
    assert len(figure.axes) == 4
    for place, ranking in enumerate(report.rankings):
        dots, shares = figure.axes[2 * place : 2 * place + 2]
        mine = [found for found in report.differences if found.ranking == ranking]
        drawn = [value for container in dots.containers for value in container.lines[0].get_xdata()]
        assert drawn == pytest.approx([found.difference for found in mine])
        widths = [bar.get_width() for bar in shares.patches]
        expected = [
            100 * getattr(found, kind)
            for name in report.systems
            for kind in ("wins", "ties", "losses")
            for found in mine
            if found.system == name
        ]
        assert widths == pytest.approx(expected)
        assert sum(widths) == pytest.approx(100 * len(mine))


def test_pictures_are_png_or_svg(report, tmp_path):
    png, svg = tmp_path / "plot.PNG", tmp_path / "plot.svg"
    write_plot(png, report)
    write_plot(svg, report)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ET.fromstring(svg.read_bytes()).tag.endswith("svg")  # noqa: S314 (our own file)
    first = svg.read_bytes()
    write_plot(svg, report)
    assert svg.read_bytes() == first
    with pytest.raises(ConfigError, match=r"plot.pdf, expected a name that ends in .png or .svg"):
        write_plot(tmp_path / "plot.pdf", report)
