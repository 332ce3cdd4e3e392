"""What has one meaning is read alike, whatever form it comes in; what has none is refused by name."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import metatl
from metatl.data.user_attributes import read_attributes
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.evaluation.external.ranked_lists import read_lists, read_targets
from metatl.exceptions import ArgumentTypeError, DataError, MetatlError

METRICS = ["MRR", "HR@1"]


@pytest.fixture(scope="module")
def sets():
    rows = [
        (u, i, 1_500_000_000 + 1000 * u + 7 * ((3 * i + u) % 11))
        for u in range(40)
        for i in range(12)
        if (u + i) % 3
    ]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    split = metatl.cold_start_split(metatl.Interactions.from_frame(frame), k=2, min_item_count=2)
    return metatl.sample_candidate_sets(split, split.test, n=3)


@pytest.fixture(scope="module")
def scores(sets):
    return (
        np.random.default_rng(0)
        .permutation(sets.candidates.size)
        .reshape(sets.candidates.shape)
        .astype(np.float32)
    )


def ranks(found):
    return found.per_user.sort("user_id", "ranking")["rank"].to_list()


class ArrowOnly:
    def __init__(self, frame):
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self._frame.__arrow_c_stream__(requested_schema)


def wide(sets, scores):
    return pl.DataFrame({"user_id": sets.user_ids, **{f"s{c}": scores[:, c] for c in range(scores.shape[1])}})


def pairs(sets, scores):
    return pl.DataFrame(
        {
            "user_id": sets.user_ids.gather(np.repeat(np.arange(len(scores)), scores.shape[1])),
            "item_id": sets.item_ids.gather(sets.candidates.ravel()),
            "score": scores.ravel(),
        }
    )


def in_memory(sets, scores):
    table, long = wide(sets, scores), pairs(sets, scores)
    return {
        "float64": scores.astype(np.float64),
        "float16": scores.astype(np.float16),
        "integers": scores.astype(np.int32),
        "big-endian": scores.astype(">f4"),
        "a reversed view": scores[::-1][::-1],
        "reversed twice in memory": np.ascontiguousarray(scores[:, ::-1])[:, ::-1],
        "Fortran order": np.asfortranarray(scores),
        "tensor": torch.from_numpy(scores),
        "tensor of a graph": torch.from_numpy(scores).clone().requires_grad_(),
        "bfloat16": torch.from_numpy(scores).to(torch.bfloat16),
        "lazy": table.lazy(),
        "pandas": pd.DataFrame({name: table[name].to_list() for name in table.columns}),
        "arrow": ArrowOnly(table),
        "dictionary": {name: table[name].to_numpy() for name in table.columns},
        "float64 columns": table.cast({"s1": pl.Float64}),
        "an index column": table.with_columns(pl.Series("__index_level_0__", range(len(table)))),
        "users as text": table.cast({"user_id": pl.String}),
        "users as floats": table.cast({"user_id": pl.Float64}),
        "small ids": long.cast({"user_id": pl.Int32, "item_id": pl.UInt64}),
        "ids as text": long.cast({"user_id": pl.String, "item_id": pl.String}).cast(
            {"item_id": pl.Categorical}
        ),
        "spelt otherwise": long.with_columns(item_id=" " + pl.col("item_id").cast(pl.String) + ".0"),
        "a column of ranks": long.with_columns(rank=pl.lit(1), note=pl.lit("x")),
    }


@pytest.mark.parametrize(
    "form",
    [
        "float64",
        "float16",
        "integers",
        "big-endian",
        "a reversed view",
        "reversed twice in memory",
        "Fortran order",
        "tensor",
        "tensor of a graph",
        "lazy",
        "pandas",
        "arrow",
        "dictionary",
        "float64 columns",
        "an index column",
        "users as text",
        "users as floats",
        "small ids",
        "ids as text",
        "spelt otherwise",
        "a column of ranks",
    ],
)
def test_scores_in_memory(sets, scores, form):
    # Below 2^11, so that float16 holds them.
    assert scores.max() < 2**11
    expected = ranks(evaluate_scores(scores, sets, metrics=METRICS))
    assert ranks(evaluate_scores(in_memory(sets, scores)[form], sets, metrics=METRICS)) == expected


def test_bfloat16_is_ranked_as_its_own_values(sets, scores):
    tensor = torch.from_numpy(scores).to(torch.bfloat16)
    expected = ranks(evaluate_scores(tensor.float().numpy(), sets, metrics=METRICS))
    assert ranks(evaluate_scores(tensor, sets, metrics=METRICS)) == expected


@pytest.mark.parametrize("name", ["s.csv", "s.tsv", "s.csv.gz", "s.tsv.gz"])
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("change", ["plain", "mark", "windows", "spaces", "index", "more columns"])
def test_scores_in_text(sets, scores, tmp_path, name, long, change):
    frame = (pairs if long else wide)(sets, scores)
    if change == "more columns" and not long:
        pytest.skip("a wide table has no other columns")
    if change == "more columns":
        frame = frame.with_columns(rank=pl.lit("first"), label=pl.lit(None))
    if change == "index":
        frame = frame.select(pl.Series("", range(len(frame))), pl.all())
    if change == "spaces":
        frame = frame.with_columns(user_id=" " + pl.col("user_id").cast(pl.String) + " ")
    separator = "," if ".csv" in name else "\t"
    content = frame.write_csv(separator=separator).encode()
    if change == "mark":
        content = b"\xef\xbb\xbf" + content
    if change == "windows":
        content = content.replace(b"\n", b"\r\n")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    expected = ranks(evaluate_scores(scores, sets, metrics=METRICS))
    assert ranks(evaluate_scores(path, sets, metrics=METRICS)) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, ">f8"])
@pytest.mark.parametrize("form", ["npy", "npz"])
def test_arrays_of_other_types_in_files(sets, scores, tmp_path, dtype, form):
    small = np.argsort(np.argsort(scores, axis=1), axis=1).astype(dtype)
    path = tmp_path / f"s.{form}"
    np.save(path, small) if form == "npy" else np.savez_compressed(path, small)
    expected = ranks(evaluate_scores(scores, sets, metrics=METRICS))
    assert ranks(evaluate_scores(path, sets, metrics=METRICS)) == expected


def close_scores(sets, dtype):
    """Scores that differ by one in the last bit of their type: no other type tells them apart."""
    width = sets.candidates.shape[1]
    if dtype == np.int64:
        return np.full(sets.candidates.shape, 2**60, np.int64) + np.arange(width)
    return np.cumsum([[0] + [np.finfo(np.float64).eps] * (width - 1)] * len(sets.users), axis=1) + 1.0


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_scores_are_ranked_in_their_own_precision(sets, tmp_path, dtype):
    # The target has the lowest score, by less than a narrower type can hold.
    close = close_scores(sets, dtype)
    np.save(tmp_path / "s.npy", close)
    wide(sets, close).write_parquet(tmp_path / "s.parquet")
    pairs(sets, close).write_parquet(tmp_path / "long.parquet")
    for given in (close, tmp_path / "s.npy", tmp_path / "s.parquet", tmp_path / "long.parquet"):
        assert set(ranks(evaluate_scores(given, sets, metrics=METRICS))) == {close.shape[1]}
    wide(sets, close).write_csv(tmp_path / "s.csv")
    if dtype == np.float64:
        assert set(ranks(evaluate_scores(tmp_path / "s.csv", sets, metrics=METRICS))) == {close.shape[1]}
    else:
        with pytest.raises(DataError, match="an integer that a Float64 cannot hold"):
            evaluate_scores(tmp_path / "s.csv", sets, metrics=METRICS)


def test_what_has_no_meaning_is_refused_by_name(sets, scores):
    scipy = pytest.importorskip("scipy.sparse")
    for given, says in (
        (np.ma.masked_array(scores, mask=scores > 3), "scores: found a masked array"),
        (scipy.csr_matrix(scores), "scores: found a sparse csr_matrix"),
        (torch.from_numpy(scores).to_sparse(), "scores: found a sparse Tensor"),
        ([[1.0]], "scores: found list, expected an array"),
        (3, "scores: found int, expected an array"),
        (None, "scores: found NoneType, expected an array"),
    ):
        with pytest.raises(ArgumentTypeError, match=says):
            evaluate_scores(given, sets)
    unnamed = wide(sets, scores).select(pl.Series("", scores[:, 0]), pl.all())
    with pytest.raises(DataError, match="column '': found a column without a name that is no index"):
        evaluate_scores(unnamed, sets)


# --- TREC


RUN = "".join(
    f"{u} Q0 {i} {r} {10 - r}.5 tag\n" for u in (1, 2, 30) for r, i in enumerate((500, 7, 12), start=1)
)
QRELS = "1 0 500 1\n1 0 7 0\n2 0 7 1\n30 0 12 2\n"
RANKS = {"1": 1, "2": 2, "30": 3}


def trec(tmp_path, run=RUN, qrels=QRELS, *, encode=lambda text: text.encode()):
    (tmp_path / "run.txt").write_bytes(encode(run))
    (tmp_path / "qrels.txt").write_bytes(encode(qrels))
    return metatl.evaluate_lists(tmp_path / "run.txt", tmp_path / "qrels.txt", metrics="MRR")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.encode()),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: ("\n\n" + text.replace(" ", "\t ")).encode(),
        lambda text: text.replace(" 500 ", " 500.0 ").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
)
def test_trec_files_in_any_form(tmp_path, encode):
    found = trec(tmp_path, encode=encode)
    assert found.per_user["user_id"].to_list() == [1, 2, 30]
    assert found.per_user["rank"].to_list() == list(RANKS.values())


def test_lists_and_targets_may_spell_ids_differently(tmp_path):
    spelt = RUN.replace(" 500 ", " 500.0 ")
    assert trec(tmp_path, run=spelt).per_user["rank"].to_list() == [1, 2, 3]
    table = read_lists(tmp_path / "run.txt").cast({"user_id": pl.String, "item_id": pl.Float64})
    found = metatl.evaluate_lists(table, tmp_path / "qrels.txt", metrics="MRR")
    assert found.per_user["rank"].to_list() == [1, 2, 3]


def test_text_ids_stay_text(tmp_path):
    found = trec(tmp_path, RUN.replace("30 Q0", "u30 Q0"), QRELS.replace("30 0", "u30 0"))
    assert found.per_user["user_id"].to_list() == ["1", "2", "u30"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "high", "NaN"])
def test_a_relevance_that_is_no_number_is_refused_with_its_line(tmp_path, value):
    (tmp_path / "qrels.txt").write_text(QRELS.replace("7 0\n", f"7 {value}\n"))
    with pytest.raises(DataError, match=f"line 2, column 'relevance': found .*{value}.*, expected a number"):
        read_targets(tmp_path / "qrels.txt")


def test_all_bad_lines_are_named_at_once(tmp_path):
    (tmp_path / "run.txt").write_text("1 Q0 5 1 0.5\n1 Q0 5 1 0.5 t\n1 Q0 5 1\n1 Q0 6 1 high t\n")
    with pytest.raises(DataError, match=r"line 1: found 5 fields.*2 rows cannot be used: also line 3"):
        read_lists(tmp_path / "run.txt")
    (tmp_path / "run.txt").write_text("1 Q0 5 1 high t\n1 Q0 6 1 0.5 t\n1 Q0 7 1 low t\n")
    with pytest.raises(DataError, match=r"line 1, column 'score': found 'high'.*also line 3, column 'score'"):
        read_lists(tmp_path / "run.txt")


@pytest.mark.parametrize("form", ["trec", "parquet", "frame"])
def test_integer_scores_do_not_tie_after_a_cast(tmp_path, form):
    large = 2**60
    lines = [(1, item, large + place) for place, item in enumerate((5, 6, 7))]
    frame = pl.DataFrame(lines, schema=["user_id", "item_id", "score"], orient="row")
    given = frame
    if form == "trec":
        given = tmp_path / "run.txt"
        given.write_text("".join(f"{u} Q0 {i} 1 {s} t\n" for u, i, s in lines))
    elif form == "parquet":
        given = tmp_path / "run.parquet"
        frame.write_parquet(given)
    targets = pl.DataFrame({"user_id": [1], "target": [6]})
    assert metatl.evaluate_lists(given, targets, metrics="MRR").per_user["rank"].to_list() == [2]
    mixed = tmp_path / "mixed.txt"
    mixed.write_text("".join(f"{u} Q0 {i} 1 {s} t\n" for u, i, s in lines) + "1 Q0 8 1 0.5 t\n")
    with pytest.raises(DataError, match="an integer that a Float64 cannot hold"):
        read_lists(mixed)


def test_candidates_as_qrels_keep_their_protocol(sets, scores, tmp_path):
    sets.save(tmp_path / "c.parquet")
    lists = pairs(sets, scores)
    lists.cast({"user_id": pl.String}).write_csv(tmp_path / "lists.csv")
    found = metatl.evaluate_lists(tmp_path / "lists.csv", tmp_path / "c.parquet", name="lists")
    assert found.record.dataset_fingerprint == sets.dataset_fingerprint
    assert found.per_user["user_id"].dtype == pl.Int64
    other = metatl.evaluate_lists(lists, tmp_path / "c.parquet", name="other")
    assert metatl.compare_users([found, other]) is not None
    of_scores = evaluate_scores(scores, tmp_path / "c.parquet")
    assert of_scores.record.split_sha256 == found.record.split_sha256
    assert found.record.candidates_sha256 is None


def test_users_of_other_types_are_compared(sets, scores):
    one = evaluate_scores(scores, sets, name="one")
    record, frame = one.record, one.per_user
    other = record.model_copy(update={"system": "other"})
    as_text = frame.with_columns(pl.col("user_id").cast(pl.String) + ".0").sample(
        fraction=1, shuffle=True, seed=0
    )
    comparison = metatl.compare_users([(record, frame), (other, as_text)])
    assert comparison is not None


# --- Attributes and item ids


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet", "a.jsonl"])
def test_attributes_join_by_the_rule_of_ids(sets, scores, tmp_path, name):
    path = tmp_path / name
    users = [str(user) for user in sets.user_ids]
    table = pl.DataFrame(
        {"user_id": [f" {user}" for user in users], "half": [index % 2 for index in range(len(users))]}
    )
    if name == "a.parquet":
        table.write_parquet(path)
    elif name == "a.jsonl":
        table.write_ndjson(path)
    else:
        content = table.write_csv(separator="\t" if "tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    attributes = read_attributes(path)
    found = evaluate_scores(scores, sets, by=["half"], attributes=attributes).results
    assert [part.value for part in found.slices] == ["0", "1"] or [part.value for part in found.slices] == [
        0,
        1,
    ]


def test_ids_with_leading_zeros_stay_text(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,zip\n001061,02139\n7,10001\nA,\n")
    attributes = read_attributes(tmp_path / "a.csv")
    assert attributes["user_id"].to_list() == ["001061", "7", "A"]
    assert attributes["zip"].to_list() == ["02139", "10001", None]
    (tmp_path / "late.csv").write_text("user_id,x\n" + "".join(f"{i},1\n" for i in range(300)) + "u,1\n")
    assert read_attributes(tmp_path / "late.csv")["user_id"].to_list()[-1] == "u"


def test_a_trec_run_can_be_sliced(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,country\n1,de\n2,fr\n30,de\n")
    trec(tmp_path)
    found = metatl.evaluate_lists(
        tmp_path / "run.txt",
        tmp_path / "qrels.txt",
        by=["country"],
        attributes=read_attributes(tmp_path / "a.csv"),
    )
    assert [(part.value, part.users) for part in found.results.slices] == [("de", 2), ("fr", 1)]


@pytest.mark.parametrize("spell", ["{}", "{}.0", " {}", '"{}"'])
def test_item_ids_in_any_spelling(sets, tmp_path, spell):
    rng = np.random.default_rng(0)
    queries, items = (
        rng.random((len(sets.users), 4), np.float32),
        rng.random((len(sets.item_ids), 4), np.float32),
    )
    (tmp_path / "ids.csv").write_text(
        "item_id,count\n" + "".join(f"{spell.format(i)},3\n" for i in sets.item_ids)
    )
    expected = metatl.evaluate_embeddings(sets, queries, items, sets.item_ids)
    found = metatl.evaluate_embeddings(sets, queries, items, tmp_path / "ids.csv")
    assert ranks(found) == ranks(expected)
    for dtype in (pl.Int32, pl.UInt64, pl.Float64, pl.String, pl.Decimal(20, 2)):
        found = metatl.evaluate_embeddings(sets, queries, items, sets.item_ids.cast(dtype))
        assert ranks(found) == ranks(expected)
    for change in (
        lambda x: x.astype(np.float16).astype(np.float32),
        np.asfortranarray,
        lambda x: x[::-1].copy()[::-1],
    ):
        assert ranks(metatl.evaluate_embeddings(sets, queries, change(items), sets.item_ids))


# --- Damage


def npy(header):
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), \n'''",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 3}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2)}",
        "{'descr': [1], 'fortran_order': False, 'shape': (3, 2)}",
        "{'descr': {}, 'fortran_order': False, 'shape': (3, 2)}",
        "{" * 3000,
        "(" * 90 + ")" * 90,
        "1",
        "\x00",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 2)}}",
    ],
)
def test_headers_of_numpy_that_are_none(sets, tmp_path, header):
    path = tmp_path / "s.npy"
    path.write_bytes(npy(header))
    with pytest.raises(DataError, match=rf"^{path}: "):
        evaluate_scores(path, sets)
    items = np.zeros((len(sets.item_ids), 2), np.float32)
    with pytest.raises(MetatlError, match=str(path)):
        metatl.evaluate_embeddings(sets, path, items, sets.item_ids)
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("scores.npy", npy(header))
    with pytest.raises(DataError, match=r"s\.npz: "):
        evaluate_scores(tmp_path / "s.npz", sets)


def test_archives_that_cannot_be_unpacked(sets, scores, tmp_path):
    content = io.BytesIO()
    np.savez(content, scores)
    for offset, value in ((6, 1), (8, 99)):
        # The flags of encryption and the method of compression, in both headers.
        changed = bytearray(content.getvalue())
        for start, at in ((changed.index(b"PK\x03\x04"), offset), (changed.index(b"PK\x01\x02"), offset + 2)):
            changed[start + at] = value
        (tmp_path / "s.npz").write_bytes(changed)
        with pytest.raises(DataError, match=r"s\.npz: found a damaged archive, or one that cannot be read"):
            evaluate_scores(tmp_path / "s.npz", sets)


def test_a_header_of_a_million_columns_is_refused(sets, tmp_path):
    header = ",".join(map(str, range(1_000_000)))
    (tmp_path / "s.csv").write_text(f"user_id,{header}\n")
    with pytest.raises(DataError, match=r"s\.csv, line 1: found more than 100,000 columns"):
        evaluate_scores(tmp_path / "s.csv", sets)
    for read in (read_attributes, metatl.read_interactions):
        with pytest.raises(DataError, match=r"s\.csv, line 1: found more than 10,000 columns"):
            read(tmp_path / "s.csv")


def test_candidates_with_numbers_beyond_64_bits_are_damaged(sets, tmp_path):
    path = tmp_path / "c.parquet"
    sets.save(path)
    frame, metadata = pl.read_parquet(path), pl.read_parquet_metadata(path)
    for change in (
        {"num_items": 10**30},
        {"protocol": {"seed": 10**30}},
        {"protocol": {"k": 10**30}},
        {"protocol": {"n": 10**25}},
    ):
        record = json.loads(metadata["metatl.candidates"])
        for name, value in change.items():
            record[name] = {**record[name], **value} if isinstance(value, dict) else value
        frame.write_parquet(path, metadata={"metatl.candidates": json.dumps(record)})
        with pytest.raises(DataError, match=r"c.parquet"):
            metatl.CandidateSets.load(path)
