"""`metatl recommend` as people run it."""

from __future__ import annotations

import polars as pl
import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl.recommend import recommend as command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "wines"
    metatl.fit("wines", model="knn", out=out, device="cpu")
    return out


@pytest.fixture(scope="module")
def wines(run):
    return metatl.load_run(run).item_ids.to_list()


def recommend(*arguments):
    # Wide enough for the longest name.
    return CliRunner(env={"COLUMNS": "200"}).invoke(command, [str(argument) for argument in arguments])


def test_one_user(run, wines):
    history = wines[10:13]
    result = recommend(run, "--history", f"{history[0]}, {history[1]},{history[2]}", "--top", 5)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    expected = metatl.recommend(metatl.load_run(run), [history], top=5)[0]
    names = metatl.datasets.item_names()
    for found in expected:
        row = next(line for line in result.stdout.splitlines() if str(found.item_id) in line)
        assert names[found.item_id] in row
        assert f"{found.score:.4f}" in row
    assert len(expected) == 5


def test_the_item_table_can_be_rounded(run, wines, tmp_path):
    fitted = tmp_path / "bpr"
    metatl.fit("wines", model="bpr", config={"max_steps": 20, "eval_every": 20}, out=fitted, device="cpu")
    history = wines[10:13]
    shown = recommend(fitted, "--history", ",".join(map(str, history)), "--item-table", "int8")
    assert shown.exit_code == 0, shown.output
    loaded = metatl.load_run(fitted)
    by_name = metatl.recommend(loaded, [history], item_table="int8")
    made_once = metatl.recommend(loaded, [history], item_table=metatl.ItemTable.of(loaded.model, "int8"))
    assert by_name[0] == made_once[0]
    assert by_name[0] != metatl.recommend(loaded, [history])[0]
    for found in by_name[0]:
        row = next(line for line in shown.stdout.splitlines() if str(found.item_id) in line)
        assert f"{found.score:.4f}" in row
    refused = recommend(run, "--history", str(wines[0]), "--item-table", "bf16")
    assert refused.exit_code == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "ItemKNN has no item vectors to round" in refused.stderr


def test_unknown_items_are_reported(run, wines):
    result = recommend(run, "--history", f'{wines[0]},nonesuch,"a, b"')
    assert result.exit_code == 0
    assert "unknown items, left out: nonesuch, a, b" in result.stderr
    assert "one known item" in result.stderr


@pytest.mark.parametrize("history", ["", " , ", "nonesuch"])
def test_without_a_known_item_the_popular_ones_are_given_and_told_so(run, history):
    result = recommend(run, "--history", history, "--top", 3)
    assert result.exit_code == 0, result.output
    assert "most popular items" in result.stderr
    fitted = metatl.load_run(run)
    popular = sorted(range(len(fitted.item_ids)), key=lambda item: (-fitted.item_counts[item], item))[:3]
    rows = [line for line in result.stdout.splitlines() if any(character.isdigit() for character in line)]
    assert [str(fitted.item_ids[item]) in row for item, row in zip(popular, rows, strict=True)] == [True] * 3


def test_a_history_has_one_line(run, wines):
    refused = recommend(run, "--history", f"{wines[0]}\n{wines[1]}")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert "--history: found a line break, expected one line of ids with commas between them" in line
    assert "--input" in line
    refused = recommend(run, "--history", "x" * 200_000)
    assert refused.exit_code == 2
    assert "--history: found field larger than field limit (131072)" in refused.stderr


def test_many_users(run, wines, tmp_path):
    source, out = tmp_path / "visitors.csv", tmp_path / "recommended.parquet"
    source.write_text(
        f"user,item,timestamp\nann,{wines[3]},2\nann,{wines[5]},1\nann,77,3\nbob,{wines[8]},1\ncid,77,1\n"
    )
    result = recommend(run, "--input", source, "--out", out, "--top", 4)
    assert result.exit_code == 0, result.output
    assert "3 users" in result.stdout
    assert "1 unknown items left out (77)" in result.stdout
    assert "1 users without a known item" in result.stdout
    frame = pl.read_parquet(out)
    assert frame.columns == ["user_id", "rank", "item_id", "item_name", "score", "basis", "unknown_items"]
    assert frame["user_id"].to_list() == ["ann"] * 4 + ["bob"] * 4 + ["cid"] * 4
    assert frame["rank"].to_list() == [1, 2, 3, 4] * 3
    assert frame["unknown_items"].to_list() == [1] * 4 + [0] * 4 + [1] * 4
    assert frame["basis"].to_list() == ["history"] * 8 + ["popularity"] * 4
    names = metatl.datasets.item_names()
    assert frame["item_name"].to_list() == [names[item] for item in frame["item_id"]]
    expected = metatl.recommend(metatl.load_run(run), [[wines[5], wines[3]]], top=4)[0]
    assert frame["item_id"][:4].to_list() == [found.item_id for found in expected]


def test_columns_are_called_as_in_the_data_of_the_run_or_as_said(tmp_path):
    # 300 buyers, one after the other, each of whom takes eight articles.
    rows = {
        "buyer": [buyer for buyer in range(300) for _ in range(8)],
        "article": [f"i{(7 * row + row // 8) % 150}" for row in range(2400)],
        "day": range(2400),
    }
    data, out = tmp_path / "sales.csv", tmp_path / "answers.parquet"
    pl.DataFrame(rows).write_csv(data)
    columns, split = ("buyer", "article", "day"), metatl.SplitSettings(k=2, min_item_count=1)
    metatl.fit(data, model="popularity", columns=columns, split=split, out=tmp_path / "run", device="cpu")
    result = recommend(tmp_path / "run", "--input", data, "--out", out)
    assert result.exit_code == 0, result.output
    expected = pl.read_parquet(out)
    assert expected["user_id"].unique().sort().to_list() == list(range(300))
    pl.DataFrame({"who": rows["buyer"], "what": rows["article"], "when": rows["day"]}).write_csv(data)
    refused = recommend(tmp_path / "run", "--input", data, "--out", out)
    assert refused.exit_code == 2
    assert "buyer" in refused.stderr
    renamed = recommend(tmp_path / "run", "--input", data, "--out", out, "--columns", "who,what,when")
    assert renamed.exit_code == 0, renamed.output
    assert pl.read_parquet(out).equals(expected)


def test_bad_input_is_one_line_and_overwrites_nothing(run, tmp_path):
    out = tmp_path / "recommended.parquet"
    out.write_text("old")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    no_items = tmp_path / "no_items.csv"
    no_items.write_text("user,timestamp\nann,1\n")
    bad_time = tmp_path / "bad_time.csv"
    bad_time.write_text("user,item,timestamp\nann,1,1\nann,2,soon\n")
    for source, part in (
        (empty, "empty"),
        (no_items, "item"),
        (bad_time, "line 3"),
        (tmp_path / "none.csv", "none.csv"),
    ):
        result = recommend(run, "--input", source, "--out", out)
        assert result.exit_code == 2
        assert part in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert out.read_text() == "old"
    result = recommend(tmp_path / "nothing", "--history", "1")
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_question_is_not_written_over(run, tmp_path):
    visitors = tmp_path / "visitors.csv"
    visitors.write_text("user_id,item_id,timestamp\nu,1,1\n")
    for out in (visitors, run / "run.json"):
        before = out.read_bytes()
        result = recommend(run, "--input", visitors, "--out", out)
        assert result.exit_code == 2
        assert "which the command reads" in result.stderr
        assert out.read_bytes() == before


def test_either_one_user_or_a_file(run, tmp_path):
    assert recommend(run).exit_code == 2
    assert recommend(run, "--history", "1", "--input", "x.csv").exit_code == 2
    assert recommend(run, "--input", tmp_path / "x.csv").exit_code == 2
    assert "--out" in recommend(run, "--history", "1", "--out", tmp_path / "x.parquet").stderr
