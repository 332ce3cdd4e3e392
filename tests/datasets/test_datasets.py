"""The bundled data, and data by name."""

from __future__ import annotations

import csv
import gzip
from importlib import resources
from pathlib import Path

import pytest

from metatl import datasets
from metatl.exceptions import DataError


def bundled(name):
    text = gzip.decompress((resources.files("metatl.datasets") / name).read_bytes()).decode()
    return list(csv.DictReader(text.splitlines(), delimiter="\t" if ".tsv" in name else ","))


def test_the_wines_are_all_there():
    wines = datasets.xwines()
    rows = bundled("xwines_slim.tsv.gz")
    assert wines.num_interactions == len(rows) == 150_000
    assert wines.user_ids.to_list() == sorted({int(row["user"]) for row in rows})
    assert wines.item_ids.to_list() == sorted({int(row["item"]) for row in rows})
    assert wines.fingerprint == "7b737ab06157753442fd213609b226f662a0271e3d00d7fec02d882ab3257257"


def test_every_wine_has_a_name_of_its_own():
    names = datasets.item_names()
    assert list(names) == [int(row["WineID"]) for row in bundled("xwines_slim_wines.csv.gz")]
    assert set(names) == set(datasets.xwines().item_ids)
    assert len(set(names.values())) == len(names)
    assert names[100001] == "Espumante Moscatel, Casa Perini"


def test_data_by_name_and_by_path(tmp_path, monkeypatch):
    assert datasets.load("wines").num_users == 10_561
    monkeypatch.chdir(tmp_path)
    Path("wines").write_text("user,item,timestamp\n1,2,3\n", encoding="utf-8")
    assert datasets.load("./wines").num_users == 1
    assert datasets.load(Path("./wines").absolute()).num_users == 1
    with pytest.raises(DataError, match="found no such file"):
        datasets.load("wine")


def test_where_data_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert datasets.source("wines") == "wines"
    assert datasets.source("a.csv") == str(tmp_path / "a.csv")
    assert datasets.source(tmp_path / "a.csv") == str(tmp_path / "a.csv")
