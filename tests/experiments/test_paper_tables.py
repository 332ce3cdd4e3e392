"""The paper's tables and figure beside ours: numbers, marks, tests, and the files that they leave."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from scipy import stats

from metatl import datasets
from metatl.data.dataset_statistics import statistics
from metatl.evaluation.report.pages import Heading, Image, Points, Table, Text, html_page, markdown
from metatl.evaluation.report.plots import LinePanel, Point, Series, draw_lines, svg
from metatl.experiments.ablation import TO_PAPER, TO_TUNED, ablation, ablation_rows
from metatl.experiments.comparison import compare_rows, standings
from metatl.experiments.data_sources import DataSource
from metatl.experiments.figure2 import figure2, figure2_rows
from metatl.experiments.paper import COLUMNS, FIGURE_2, TABLE_1, TABLE_2
from metatl.experiments.report_files import marked, p_value, write_report
from metatl.experiments.table1 import differences, table1
from metatl.experiments.table2 import table2
from metatl.experiments.table_rows import SMOKE_STEPS, TUNED, WITHOUT_STEP, Row
from metatl.metrics.significance import compare, holm
from metatl.models.metatl.config import MetaTLConfig
from planted_data import write_ring
from planted_outcome import as_json, planted

USERS = 40
# Sampled and full ranks of one seed; A is best among the candidates, C in the catalogue.
A = ([1] * 20 + [2] * 20, [4, 8] * 20)
B = ([1] * 15 + [2] * 10 + [3] * 15, [5, 10] * 20)
C = ([2] * 30 + [4] * 10, [2, 3] * 20)
RANKS = {"A": {0: A}, "B": {0: B}, "C": {0: C}}
RING = DataSource("ring", "ring.csv")
MOVIES = DataSource("movies", "movies.csv")


def rows(*titles, published=()):
    return [Row(title, "knn", "tuned", published=dict(published).get(title)) for title in titles]


def of_kind(report, kind):
    return [part for part in report.parts if isinstance(part, kind)]


def cells(table):
    return {line[0]: dict(zip(table.header, line, strict=True)) for line in table.rows}


def make_table2(outcome, source=RING, *, published=(), seeds=1, titles="ABC"):
    return table2(outcome, [source], rows(*titles, published=published), ks=[3], seeds=seeds, budget="tuned")


def test_the_paper_as_data():
    assert TABLE_2["MetaTL"]["Book"].mrr == 0.555
    assert TABLE_2["BPR-MF"]["Electronics"].hit_rate == 0.066
    assert TABLE_1["Movie"].users == 26_933
    # As the paper says: MetaTL is the best everywhere, MetaCF the next.
    for column in TABLE_1:
        for metric in ("hit_rate", "mrr"):
            order = sorted(TABLE_2, key=lambda system: getattr(TABLE_2[system][column], metric))
            assert order[-2:] == ["MetaCF", "MetaTL"]
    assert set(COLUMNS.values()) == set(TABLE_1)
    assert set(FIGURE_2.columns) < set(TABLE_1)
    assert set(FIGURE_2.systems) - set(TABLE_2) == {"MetaTL−−"}


def test_standings_against_scipy():
    found = standings(planted(RANKS), "ring", 3)
    assert found.test_users == USERS
    assert found.best == {"sampled": "A", "full": "C"}
    assert found.next_best("sampled") == "B"
    assert found.mean("A") == pytest.approx(0.75)
    score = found.scores["B"]["sampled"]["MRR"]
    assert (score.low, score.high, score.seeds) == (score.mean - 0.05, score.mean + 0.05, 1)
    ones = {name: [1 / rank for rank in ranks[0][0]] for name, ranks in RANKS.items()}
    t_ps = holm([stats.ttest_rel(ones[name], ones["A"]).pvalue for name in "BC"])
    wilcoxon_ps = holm([stats.wilcoxon(ones[name], ones["A"], zero_method="pratt").pvalue for name in "BC"])
    for name, t_p, wilcoxon_p in zip("BC", t_ps, wilcoxon_ps, strict=True):
        test = found.against_best["sampled"][name]
        assert (test.t_p, test.wilcoxon_p) == pytest.approx((t_p, wilcoxon_p))
        assert test.comparison.difference == pytest.approx(found.mean(name) - found.mean("A"))
    # A B C against C A B: of three pairs two are turned.
    assert found.orders.kendall == pytest.approx(-1 / 3)
    assert found.orders.spearman == pytest.approx(-0.5)
    assert standings(planted(RANKS), "ring", 2) is None


def test_seeds_are_averaged_for_each_user_before_the_test():
    ranks = {"A": {0: A, 1: B, 2: A}, "B": {0: C, 1: A}}
    outcome = planted(ranks)
    found = compare_rows(outcome, "ring", 3, "A", "B", "sampled")
    one = [(1 / first + 1 / second) / 2 for first, second in zip(A[0], B[0], strict=True)]
    other = [(1 / first + 1 / second) / 2 for first, second in zip(C[0], A[0], strict=True)]
    assert found.difference == pytest.approx(compare(one, other).difference)
    assert found.t_p == pytest.approx(compare(one, other).t_p)
    score = standings(outcome, "ring", 3).scores["A"]["sampled"]["MRR"]
    values = [sum(1 / rank for rank in ranks) / USERS for ranks in (A[0], B[0], A[0])]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (score.low, score.high, score.seeds) == pytest.approx((expected.low, expected.high, 3))
    assert compare_rows(outcome, "ring", 3, "A", "missing", "sampled") is None


def test_users_are_paired_by_their_id_and_not_by_their_place():
    outcome = planted(RANKS)
    key = ("ring", "B", 3, 0)
    outcome.ranks[key] = outcome.ranks[key].reverse()
    shuffled, straight = (
        compare_rows(found, "ring", 3, "B", "A", "sampled") for found in (outcome, planted(RANKS))
    )
    assert shuffled == straight


def test_the_table_of_other_data():
    report = make_table2(planted(RANKS))
    scores, tests, paper = of_kind(report, Table)
    assert cells(scores)["A"]["MRR"] == "**0.7500 [0.7000, 0.8000]**"
    assert cells(scores)["B"]["MRR"].endswith("†")
    assert cells(scores)["C"]["MRR, full"].startswith("**")
    assert "MRR, paper" not in scores.header
    assert cells(tests)["A"]["difference"] == "best"
    assert cells(tests)["C"]["difference, full"] == "best"
    assert cells(tests)["C"]["difference"] == f"{30 * 0.5 / 40 + 10 * 0.25 / 40 - 0.75:+.4f}"
    assert cells(paper)["MetaTL"]["Book MRR"] == "**0.555**"
    assert cells(paper)["MetaCF"]["Book MRR"] == "0.528†"
    text = markdown(report.parts)
    assert "Kendall τ = -0.33, Spearman ρ = -0.50" in text
    assert "ring, K = 3, among 100 negatives: A has the best MRR, +0." in text
    assert "no such system: BPR-MF, TransRec, GRU4Rec, TCN, SASRec, BERT4Rec, MeLU, MetaCF, MetaTL." in text


def test_the_table_of_the_papers_data_is_beside_the_papers():
    outcome = planted(RANKS, dataset="movies")
    report = make_table2(outcome, MOVIES, published={"A": "MetaTL", "B": "MetaTL−−"}.items())
    scores = cells(of_kind(report, Table)[0])
    assert (scores["A"]["HR@1, paper"], scores["A"]["MRR, paper"]) == ("0.258", "0.380")
    assert scores["A"]["MRR − paper"] == "+0.370"
    # The paper's table has no MetaTL−−.
    assert scores["B"]["MRR, paper"] == scores["C"]["MRR, paper"] == ""
    # Table 2 is of K = 3.
    other = planted(RANKS, dataset="movies", k=2)
    report = table2(
        other, [MOVIES], rows("A", published={"A": "MetaTL"}.items()), ks=[2], seeds=1, budget="tuned"
    )
    assert "MRR, paper" not in of_kind(report, Table)[0].header


def test_failures_and_missing_seeds_are_said():
    outcome = planted({"A": {0: A, 1: A}, "B": {0: B}}, failures=["ring C K = 3 seed 0: it burnt"])
    text = markdown(make_table2(outcome, seeds=2).parts)
    assert "| B (1 of 2 seeds) |" in text
    assert "- ring C K = 3 seed 0: it burnt" in text
    nothing = make_table2(planted({}, failures=["all"]))
    assert nothing.pictures == {}
    assert "- all" in markdown(nothing.parts)


def test_what_is_not_significant_is_not_said_to_be():
    close = {"A": {0: A}, "B": {0: ([1] * 19 + [2] * 21, A[1])}}
    text = markdown(make_table2(planted(close)).parts)
    assert "A has the best MRR, but not significantly (+0.0125 to B, the next, p = 0.3" in text
    alone = markdown(make_table2(planted({"A": {0: A}})).parts)
    assert "among 100 negatives: A has the best MRR." in alone


def test_marks():
    assert marked(["a", "b", "c", "d"], [0.2, 0.3, 0.3, 0.1]) == ["a†", "**b**", "**c**", "d"]
    assert marked(["a"], [1.0]) == ["**a**"]
    assert marked([], []) == []
    assert (p_value(0.00004), p_value(0.0301)) == ("< .0001", "0.0301")


class Page(HTMLParser):
    """What an HTML page refers to, and its text."""

    def __init__(self):
        super().__init__()
        self.references, self.texts, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def parsed(text):
    page = Page()
    page.feed(text)
    return page


def test_the_files(tmp_path):
    report = make_table2(planted(RANKS))
    files = write_report(tmp_path / "out", report)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "table2.html", "table2.json", "table2.md", "table2.png",
    ]  # fmt: skip
    assert set(files) == set((tmp_path / "out").iterdir())
    picture = (tmp_path / "out" / "table2.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    html = (tmp_path / "out" / "table2.html").read_text(encoding="utf-8")
    page = parsed(html)
    (reference,) = page.references
    assert base64.b64decode(reference.removeprefix("data:image/png;base64,")) == picture
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "https:" not in re.sub(r'src="[^"]*"', "", html)
    assert "](table2.png)" in (tmp_path / "out" / "table2.md").read_text(encoding="utf-8")
    data = as_json(report)
    assert data["standings"][0]["scores"]["A"]["sampled"]["MRR"]["mean"] == pytest.approx(0.75)
    assert data["paper"]["MetaTL"]["Movie"]["mrr"] == 0.38


def test_pages():
    parts = [
        Heading("A <title> & `code`", 1),
        Text("**bold** < `a|b`"),
        Points(("one", "`two`")),
        Table(("name", "x"), (("a|b", "**1**"),)),
        Image("a.png", b"png", 'an "image"'),
    ]
    assert markdown(parts) == (
        "# A <title> & `code`\n\n**bold** < `a|b`\n\n- one\n- `two`\n\n"
        '| name | x |\n| --- | ---: |\n| a\\|b | **1** |\n\n![an "image"](a.png)\n'
    )
    html = html_page(parts)
    assert "<title>A &lt;title&gt; &amp; code</title>" in html
    assert "<p><strong>bold</strong> &lt; <code>a|b</code></p>" in html
    assert "<tr><td>a|b</td><td><strong>1</strong></td></tr>" in html
    assert '<img alt="an &quot;image&quot;" src="data:image/png;base64,cG5n">' in html


def test_the_figure(tmp_path):
    outcome_of = {k: planted({TUNED: {0: A}, WITHOUT_STEP: {0: B}}, k=k) for k in (2, 4)}
    merged = replace(
        outcome_of[2],
        results=outcome_of[2].results.vstack(outcome_of[4].results),
        ranks={**outcome_of[2].ranks, **outcome_of[4].ranks},
    )
    systems = figure2_rows("tuned")
    report = figure2(merged, [RING], systems, ks=[2, 3, 4], seeds=1, budget="tuned")
    (table,) = of_kind(report, Table)
    assert table.header == ("system", "K = 2", "K = 4")
    assert cells(table)[TUNED]["K = 4"] == "**0.7500 [0.7000, 0.8000]**"
    absent = [system for system in FIGURE_2.systems if system not in {row.published for row in systems}]
    assert report.data["absent"] == absent
    for system in absent:
        assert f"{system}" in "".join(of_kind(report, Points)[0].items[1:])
    names = {file.name for file in write_report(tmp_path, report)}
    assert names == {"figure2.md", "figure2.json", "figure2.html", "figure2.png", "figure2.svg"}
    drawing = (tmp_path / "figure2.svg").read_text()
    assert "<svg" in drawing


def test_drawings_are_the_same_each_time():
    panel = LinePanel("ring", (Series("a", (Point(2, 0.1, 0.05, 0.2), Point(3, 0.2, 0.1, 0.3))),), "MRR")
    first, second = (svg(draw_lines([panel])) for _ in range(2))
    assert first == second
    other = replace(panel, series=(Series("a", (Point(2, 0.1, 0.05, 0.3), Point(3, 0.2, 0.1, 0.3))),))
    assert svg(draw_lines([other])) != first


@pytest.mark.parametrize(
    ("start", "end", "steps"), [("official", "paper", TO_PAPER), ("paper", "tuned", TO_TUNED)]
)
def test_the_ablation_leads_from_preset_to_preset(start, end, steps):
    config, changes = MetaTLConfig.preset(start), {}
    for step in steps:
        # Each field is changed once, and each change is one.
        assert not step.changes.keys() & changes.keys()
        for name, value in step.changes.items():
            assert getattr(config, name) != value, name
        changes.update(step.changes)
    for count in range(len(steps) + 1):
        given = {name: value for step in steps[:count] for name, value in step.changes.items()}
        MetaTLConfig.preset(start, **given)
    assert MetaTLConfig.preset(start, **changes) == MetaTLConfig.preset(end)


def test_the_rows_of_the_ablation():
    path = ablation_rows("tuned")
    assert len({row.title for row in path}) == len(path) == 1 + len(TO_PAPER) + len(TO_TUNED)
    configs = [MetaTLConfig.preset(row.preset, **row.config) for row in path]
    assert configs[0] == MetaTLConfig.preset("official")
    assert configs[len(TO_PAPER)] == MetaTLConfig.preset("paper")
    assert configs[-1] == MetaTLConfig.preset("tuned")
    for row in ablation_rows("smoke"):
        assert MetaTLConfig.preset(row.preset, **row.config).max_steps == SMOKE_STEPS


def test_the_ablation_compares_each_row_with_the_one_above():
    path = ablation_rows("tuned")[:5]
    nearly_a = ([1] * 21 + [2] * 19, A[1])
    ranks = {row.title: {0: of_row} for row, of_row in zip(path, (A, B, C, A, nearly_a), strict=True)}
    report = ablation(planted(ranks), [RING], path, ks=[3], seeds=1, budget="tuned")
    table = cells(of_kind(report, Table)[0])
    assert table[path[0].title]["difference"] == ""
    ones = [[1 / rank for rank in ranks[row.title][0][0]] for row in path]
    tests = [compare(after, before) for before, after in pairwise(ones)]
    corrected = holm([test.t_p for test in tests])
    for row, test, p in zip(path[1:], tests, corrected, strict=True):
        assert table[row.title]["difference"] == f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
        assert table[row.title]["p"] == p_value(p)
    assert table[TO_PAPER[0].title]["set"] == "`freeze_after_first_evaluation=False`"
    said = of_kind(report, Text)[-1].text
    for row, test, p in zip(path[1:], tests, corrected, strict=True):
        assert (f"“{row.title}” ({test.difference:+.4f})" in said.split("in the full")[0]) == (p < 0.05)
    assert {p < 0.05 for p in corrected} == {True, False}
    # Without the row above there is nothing to compare with.
    del ranks[path[1].title]
    report = ablation(planted(ranks), [RING], path, ks=[3], seeds=1, budget="tuned")
    table = cells(of_kind(report, Table)[0])
    assert table[path[2].title]["difference"] == ""
    assert table[path[3].title]["difference"] != ""


def test_table_1(tmp_path):
    movies = DataSource("movies", str(write_ring(tmp_path / "ring.csv")))
    report = table1([DataSource("wines", "wines"), movies])
    table = cells(of_kind(report, Table)[0])
    assert table["wines"]["users"] == "10,461"
    assert table["movies"]["T"] == "2014-01-01"
    assert table["Movie, paper"]["mean length"] == "28.97"
    assert {"Electronics, paper", "Book, paper"} <= table.keys()
    text = markdown(report.parts)
    assert "- wines: the paper does not have it." in text
    assert "movies (Movie): 300 users, the paper has 26,933 (-98.9%)." in text
    assert as_json(report)["ours"]["wines"]["num_items"] == 851
    assert report.pictures["table1.png"].startswith(b"\x89PNG")


def test_what_differs_from_table_1_is_said_in_words():
    wines = statistics(datasets.xwines())
    published = TABLE_1["Electronics"]
    same = replace(
        wines,
        num_users=published.users,
        num_items=published.items,
        mean_length=15.2649,
        first=datetime(2000, 1, 1, tzinfo=timezone.utc),
    )
    source = DataSource("electronics", "x")
    assert differences(source, same) == [
        "electronics (Electronics): users, items and mean length are those of the paper."
    ]
    assert differences(source, replace(same, num_items=20_000)) == [
        "electronics (Electronics): 20,000 items, the paper has 20,712 (-3.4%)."
    ]
    assert (
        "15.27 interactions, in the paper 15.26" in differences(source, replace(same, mean_length=15.27))[0]
    )
    late = replace(same, first=datetime(2014, 5, 1, tzinfo=timezone.utc))
    assert "span 2014-05-01 to 2021-12-31" in differences(source, late)[0]
