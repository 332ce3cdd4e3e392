"""Candidates in other evaluators' forms, read back as these evaluators read them."""

from __future__ import annotations

import ast
import csv
from dataclasses import replace

import ir_measures
import numpy as np
import polars as pl
import pytest

from metatl import datasets
from metatl.data.candidate_exports import write_ncf, write_qrels, write_rechorus
from metatl.data.candidates import CandidateSets, sample_candidate_sets
from metatl.data.split import cold_start_split


@pytest.fixture(scope="module")
def wines():
    split = cold_start_split(datasets.xwines(), k=3)
    return sample_candidate_sets(split, split.test, n=20)


def with_text_ids(sets):
    """The same sets with ids that only a careful writer gets through: separators, quotes, other scripts."""
    return replace(
        sets,
        user_ids=pl.Series([f'{user}\t"ü" x' for user in sets.user_ids]),
        item_ids=pl.Series([f"{item}, [{item}] é\n" for item in sets.item_ids]),
    )


@pytest.fixture(params=["integers", "text"])
def sets(request, wines):
    return wines if request.param == "integers" else with_text_ids(wines)


def expected(sets):
    """User, history, target, negatives of each row, as raw ids."""
    items = sets.item_ids.to_list()
    histories = sets.histories.items.reshape(-1, sets.k)
    return [
        (user, [items[item] for item in history], items[row[0]], [items[item] for item in row[1:]])
        for user, history, row in zip(
            sets.user_ids, histories.tolist(), sets.candidates.tolist(), strict=True
        )
    ]


def raw_ids(path, default):
    """What numbers stand for: as the file says, else themselves."""
    if not path.exists():
        return default
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert header[1] == "raw_id"
    return dict(rows).__getitem__


def test_rechorus(tmp_path, sets):
    folder = tmp_path / "wines"
    written = write_rechorus(folder, sets)
    assert sorted(written) == sorted(folder.iterdir())
    names = {"test.csv", "history.csv"}
    if sets.item_ids.dtype == pl.String:
        names |= {"user_ids.csv", "item_ids.csv"}
    assert {path.name for path in written} == names
    user, item = (raw_ids(folder / f"{name}_ids.csv", int) for name in ("user", "item"))
    # As pandas reads it there: a header, tabs, no quotes; the lists by Python.
    header, *lines = (folder / "test.csv").read_text().splitlines()
    assert header == "user_id\titem_id\ttime\tneg_items"
    histories = {}
    history_header, *history_lines = (folder / "history.csv").read_text().splitlines()
    assert history_header == "user_id\titem_id\ttime"
    for line in history_lines:
        number, history_item, time = line.split("\t")
        histories.setdefault(number, []).append(item(history_item))
        assert int(time) == len(histories[number])
    found = []
    for line in lines:
        number, target, time, negatives = line.split("\t")
        assert time == "4"
        assert min(int(number), int(target), *ast.literal_eval(negatives)) >= 1
        negatives = [item(str(negative)) for negative in ast.literal_eval(negatives)]
        found.append((user(number), histories[number], item(target), negatives))
    assert found == expected(sets)


def test_ncf(tmp_path, sets):
    written = write_ncf(tmp_path / "wines", sets)
    assert sorted(written) == sorted(tmp_path.iterdir())
    names = {"wines.test.rating", "wines.test.negative", "wines.history.rating"}
    if sets.item_ids.dtype == pl.String:
        names |= {"wines.user_ids.tsv", "wines.item_ids.tsv"}
    assert {path.name for path in written} == names
    user, item = (raw_ids(tmp_path / f"wines.{name}_ids.tsv", int) for name in ("user", "item"))
    histories = {}
    for line in (tmp_path / "wines.history.rating").read_text().splitlines():
        number, history_item, rating, time = line.split("\t")
        histories.setdefault(number, []).append(item(history_item))
        assert (rating, int(time)) == ("1", len(histories[number]))
    found = []
    ratings = (tmp_path / "wines.test.rating").read_text().splitlines()
    for rating, line in zip(
        ratings, (tmp_path / "wines.test.negative").read_text().splitlines(), strict=True
    ):
        pair, *negatives = line.split("\t")
        number, target, *rest = rating.split("\t")
        assert rest == ["1", "4"]
        assert ast.literal_eval(pair) == (int(number), int(target))
        found.append(
            (user(number), histories[number], item(target), [item(negative) for negative in negatives])
        )
    assert found == expected(sets)


def test_qrels(tmp_path, sets):
    path = tmp_path / "wines.qrels"
    assert sorted(write_qrels(path, sets)) == sorted(tmp_path.iterdir())
    user, item = (raw_ids(tmp_path / f"wines.qrels.{name}_ids.tsv", int) for name in ("user", "item"))
    qrels = list(ir_measures.read_trec_qrels(str(path)))
    assert all(qrel.relevance == 1 for qrel in qrels)
    assert [line.split(" ")[1] for line in path.read_text().splitlines()] == ["0"] * len(qrels)
    found = [(user(qrel.query_id), item(qrel.doc_id)) for qrel in qrels]
    assert found == [(user, target) for user, _, target, _ in expected(sets)]


def test_text_without_white_space_stays_in_qrels(tmp_path, wines):
    sets = replace(
        wines,
        user_ids=pl.Series([f"u{user}" for user in wines.user_ids]),
        item_ids=pl.Series([f"i{item}" for item in wines.item_ids]),
    )
    path = tmp_path / "a"
    assert write_qrels(path, sets) == [path]
    assert path.read_text().splitlines() == [f"{user} 0 {target} 1" for user, _, target, _ in expected(sets)]


@pytest.mark.parametrize(
    ("smallest", "rechorus", "ncf"), [(1, False, False), (0, True, False), (-1, True, True)]
)
def test_numbers_that_a_form_has_no_place_for_are_mapped(tmp_path, wines, smallest, rechorus, ncf):
    sets = replace(wines, item_ids=wines.item_ids - wines.item_ids.min() + smallest)
    write_rechorus(tmp_path / "rechorus", sets)
    assert (tmp_path / "rechorus" / "item_ids.csv").exists() == rechorus
    assert not (tmp_path / "rechorus" / "user_ids.csv").exists()
    write_ncf(tmp_path / "wines", sets)
    assert (tmp_path / "wines.item_ids.tsv").exists() == ncf


def test_a_file_without_its_split_and_sets_without_users(tmp_path, wines):
    wines.save(tmp_path / "a.parquet")
    loaded = CandidateSets.load(tmp_path / "a.parquet")
    for sets, folder in ((wines, tmp_path / "a"), (loaded, tmp_path / "b")):
        write_rechorus(folder, sets)
    assert (tmp_path / "a/test.csv").read_bytes() == (tmp_path / "b/test.csv").read_bytes()
    split = cold_start_split(datasets.xwines(), k=3)
    none = sample_candidate_sets(split, np.array([], dtype=np.int64))
    write_rechorus(tmp_path / "c", none)
    assert (tmp_path / "c/test.csv").read_text() == "user_id\titem_id\ttime\tneg_items\n"


def test_a_folder_that_cannot_be_made(tmp_path, wines):
    with pytest.raises(FileNotFoundError):
        write_rechorus(tmp_path / "a" / "b", wines)
    for write in (write_ncf, write_qrels):
        with pytest.raises(FileNotFoundError) as caught:
            write(tmp_path / "a" / "b", wines)
        assert str(tmp_path / "a" / "b") in str(caught.value.filename)
