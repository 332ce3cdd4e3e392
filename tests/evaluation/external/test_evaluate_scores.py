"""Anybody's scores: every form of them gives what ranking user by user gives, and what is wrong is named."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import metatl
from candidate_data import NEGATIVES, small_candidates, small_split
from metatl.data.readers import text_blocks
from metatl.evaluation.external import score_blocks
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.evaluation.external.score_files import open_scores
from metatl.exceptions import ArgumentTypeError, ConfigError, DataError, NotANumberError
from metatl.metrics.rank_metrics import parse_metrics, user_metrics

METRICS = "MRR,HR@1,HR@5,NDCG@5,MRR@5"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    sets = small_candidates(small_split())
    sets.save(tmp_path_factory.mktemp("candidates") / "candidates.parquet")
    return sets


@pytest.fixture(scope="module")
def file(sets, tmp_path_factory):
    path = tmp_path_factory.mktemp("candidates") / "candidates.parquet"
    sets.save(path)
    return path


@pytest.fixture(scope="module")
def scores(sets):
    generator = np.random.default_rng(7)
    scores = generator.integers(0, 60, sets.candidates.shape).astype(np.float32)
    scores[:, 0] += 20
    return scores


def pairs(sets, scores, order=None):
    """The scores as pairs, in an order."""
    width = scores.shape[1]
    frame = pl.DataFrame(
        {
            "user_id": sets.user_ids.gather(np.repeat(np.arange(len(scores)), width)),
            "item_id": sets.item_ids.gather(sets.candidates.ravel()),
            "score": scores.ravel(),
        }
    )
    return frame if order is None else frame[order]


def wide(sets, scores):
    columns = {f"score_{place}": scores[:, place] for place in range(scores.shape[1])}
    return pl.DataFrame({"user_id": sets.user_ids, **columns})


def write(form, path, sets, scores):
    """Write scores in a form; gives the file."""
    shuffled = np.random.default_rng(1).permutation(scores.size)
    path = path / f"s.{form.split()[-1]}"
    if form == "npy":
        np.save(path, scores)
    elif form == "npz":
        np.savez_compressed(path, scores=scores, other=np.zeros(3))
    elif form == "long parquet":
        pairs(sets, scores, shuffled).write_parquet(path, row_group_size=1_000)
    elif form == "long csv":
        pairs(sets, scores, shuffled).write_csv(path)
    elif form == "wide parquet":
        wide(sets, scores).write_parquet(path)
    elif form == "row groups parquet":
        wide(sets, scores).write_parquet(path, row_group_size=11)
    elif form == "quoted csv":
        wide(sets, scores).write_csv(path, quote_style="always")
    elif form == "wide tsv":
        wide(sets, scores).write_csv(path, separator="\t")
    else:
        raise AssertionError(form)
    return path


FORMS = (
    "npy",
    "npz",
    "long parquet",
    "long csv",
    "wide parquet",
    "row groups parquet",
    "wide tsv",
    "quoted csv",
)


def in_small_blocks(monkeypatch):
    """Make blocks of a few rows, so that files are read in many pieces."""
    monkeypatch.setattr(score_blocks, "BLOCK_BYTES", 4 * (1 + NEGATIVES) * 7)
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", 4_000)


def by_hand(scores, ties="worst"):
    """Metrics of every user, straight from the scores."""
    greater = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    equal = (scores[:, 1:] == scores[:, :1]).sum(axis=1)
    return user_metrics(greater, equal, parse_metrics(METRICS), ties=ties)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_gives_the_figures_by_hand(form, sets, file, scores, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch)
    evaluation = evaluate_scores(write(form, tmp_path, sets, scores), file, metrics=METRICS)
    expected = by_hand(scores)
    found = evaluation.results.metrics.sampled
    for metric, mean in zip(parse_metrics(METRICS), expected.mean(axis=0), strict=True):
        assert found[metric.name].value == pytest.approx(mean)
    frame = evaluation.per_user
    assert frame["user_id"].equals(sets.user_ids)
    np.testing.assert_array_equal(frame.select(METRICS.split(",")).to_numpy(), expected)
    assert evaluation.results.candidates.sha256 == sets.sha256
    assert evaluation.results.source.name == "s"
    assert not evaluation.results.notes


def test_arrays_tensors_and_frames_are_scores_too(sets, scores):
    expected = metatl.evaluate_scores(scores, sets, metrics=METRICS).metrics
    for given in (torch.from_numpy(scores), wide(sets, scores), pairs(sets, scores)):
        assert metatl.evaluate_scores(given, sets, metrics=METRICS).metrics == expected
    assert metatl.evaluate_scores(np.asfortranarray(scores), sets, metrics=METRICS).metrics == expected


def test_pandas_frames(sets, scores):
    expected = metatl.evaluate_scores(scores, sets, metrics=METRICS).metrics
    for frame in (pairs(sets, scores), wide(sets, scores)):
        given = pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
        numbers = [name for name in frame.columns if name.startswith("score")]
        given[numbers] = given[numbers].astype(np.float32)
        assert metatl.evaluate_scores(given, sets, metrics=METRICS).metrics == expected


@pytest.mark.parametrize("ties", ["worst", "mean", "best"])
def test_tie_rules(ties, sets, scores):
    found = evaluate_scores(scores, sets, metrics=METRICS, ties=ties)
    mean = by_hand(scores, ties).mean(axis=0)
    assert [value.value for value in found.results.metrics.sampled.values()][:5] == pytest.approx(mean)
    ties_found = found.results.ties["sampled"]
    assert ties_found.share == pytest.approx((scores[:, 1:] == scores[:, :1]).any(axis=1).mean())
    assert ties_found.metrics[ties]["MRR"] == pytest.approx(mean[0])


def test_a_constant_model_scores_chance_or_nothing(sets):
    constant = np.zeros(sets.candidates.shape, np.float32)
    mean = metatl.evaluate_scores(constant, sets, metrics="HR@5,NDCG@5", ties="mean").metrics.sampled
    assert mean["HR@5"].value == pytest.approx(5 / (1 + NEGATIVES))
    assert mean["AUC"].value == pytest.approx(0.5)
    worst = metatl.evaluate_scores(constant, sets, metrics="HR@5,NDCG@5").metrics.sampled
    assert worst["HR@5"].value == worst["NDCG@5"].value == worst["AUC"].value == 0


def test_without_candidates_it_says_what_was_not_checked(scores):
    results = metatl.evaluate_scores(scores, metrics=METRICS).results
    assert results.candidates is None
    assert results.metrics.corrected is None
    assert "These were not checked: column 0 is the target" in results.notes[0]
    mean = by_hand(scores).mean(axis=0)
    assert [value.value for value in results.metrics.sampled.values()][:5] == pytest.approx(mean)


def test_corrected_metrics_come_from_uniform_candidates_only(sets, scores):
    assert set(metatl.evaluate_scores(scores, sets).metrics.corrected) == {"unbiased_rank", "bias_variance"}
    split = small_split()
    popular = metatl.sample_candidate_sets(split, split.test, n=NEGATIVES, kind="popularity")
    assert metatl.evaluate_scores(scores, popular).metrics.corrected is None
    loose = metatl.sample_candidate_sets(split, split.test, n=NEGATIVES, exclude="history")
    assert metatl.evaluate_scores(scores, loose).metrics.corrected is None


def test_rows_of_nobody_s_candidates_are_noted(sets, scores):
    more = pl.DataFrame(
        {"user_id": ["nobody", sets.user_ids[0]], "item_id": ["i0", "nothing"], "score": [1.0, 2.0]},
        schema_overrides={"score": pl.Float32},
    )
    results = metatl.evaluate_scores(pl.concat([pairs(sets, scores), more]), sets, metrics=METRICS).results
    assert results.notes == ["2 rows of scores belong to no candidate and were not used."]
    assert results.metrics == metatl.evaluate_scores(scores, sets, metrics=METRICS).metrics


def test_slices_by_history_length_and_attributes(sets, scores):
    attributes = pl.DataFrame({"user_id": sets.user_ids, "half": np.arange(len(scores)) % 2})
    results = metatl.evaluate_scores(
        scores, sets, metrics=METRICS, by=["history_length", "half"], attributes=attributes
    ).results
    assert [(part.by, part.value) for part in results.slices] == [
        ("history_length", "3"), ("half", "0"), ("half", "1"),
    ]  # fmt: skip
    assert results.slices[1].metrics.sampled["MRR"].value == pytest.approx(by_hand(scores[::2])[:, 0].mean())
    with pytest.raises(ConfigError, match=r"^by: found 'colour', expected one of history_length"):
        metatl.evaluate_scores(scores, sets, by=["colour"])


def test_slices_by_the_popularity_of_the_target_in_training(sets, scores):
    train = small_split().train
    counts = Counter(train.to_frame()["item_id"].to_list())
    popularity = np.array([counts[item] for item in sets.item_ids.gather(sets.candidates[:, 0])])
    results = metatl.evaluate_scores(
        scores, sets, metrics=METRICS, by=["item_popularity"], train=train
    ).results
    assert sum(part.users for part in results.slices) == len(scores)
    for part in results.slices:
        low, _, high = part.value.partition("–")
        members = (popularity >= int(low)) & (popularity <= int(high or low))
        assert part.users == members.sum()
        mean = by_hand(scores[members])[:, 0].mean()
        assert part.metrics.sampled["MRR"].value == pytest.approx(mean)
    with pytest.raises(ConfigError, match=r"^train: found interactions, but no candidates"):
        metatl.evaluate_scores(scores, metrics=METRICS, train=train)


def test_nan_is_counted_over_the_whole_file(sets, scores, tmp_path, monkeypatch):
    monkeypatch.setattr(score_blocks, "BLOCK_BYTES", 4 * (1 + NEGATIVES) * 7)
    broken = scores.copy()
    broken[[5, 6, len(scores) - 1], [3, 0, NEGATIVES]] = np.nan
    says = rf"found 3 NaN in {scores.size:,} scores, the first in row 5, column 3 \(counted from 0\)"
    with pytest.raises(NotANumberError, match=f"^scores: {says}"):
        metatl.evaluate_scores(broken, sets)
    for form in ("npy", "npz", "wide parquet", "wide tsv"):
        path = write(form, tmp_path, sets, broken)
        with pytest.raises(NotANumberError, match=f"^{re.escape(str(path))}: scores: {says}"):
            metatl.evaluate_scores(path, sets)
    infinite = scores.copy()
    infinite[0, 0], infinite[1, 0] = np.inf, -np.inf
    frame = evaluate_scores(infinite, sets, metrics="MRR").per_user
    assert frame["rank"].head(2).to_list() == [1, 1 + NEGATIVES]


def test_arrays_that_do_not_fit_are_refused(sets, scores):
    rows, width = scores.shape
    for given, message in (
        (scores > 0, "found bool, expected float32, or floats or integers"),
        (scores.astype(np.complex64), "found complex64, expected float32, or floats or integers"),
        (scores.astype(np.longdouble), "found float128, expected float32, or floats or integers"),
        (scores[:-1], rf"found the shape \({rows - 1}, {width}\), expected \({rows}, {width}\)"),
        (scores[:, :-1], rf"expected \({rows}, {width}\)"),
        (scores[0], "expected two dimensions"),
        (wide(sets, scores).drop("score_3"), f"found {width - 1} columns of scores, expected {width}"),
        (wide(sets, scores).with_columns(extra=pl.lit(1.0)), f"found {width + 1} columns of scores"),
        (wide(sets, scores).cast({"score_3": pl.String}), "column 'score_3': .*String, expected floats or"),
        (wide(sets, scores).cast({"score_3": pl.Decimal(38, 10)}), "column 'score_3': .*Decimal.*expected"),
        (wide(sets, scores)[::-1], "row 1, column 'user_id': found the user .*in the order"),
        (wide(sets, scores)[1:], "column 'user_id': found no scores of 1 of the"),
        (pairs(sets, scores)[1:], f"found none for 1 of {scores.size:,} candidates, such as the user"),
        (pairs(sets, scores).drop("score"), "found no column 'score' beside"),
        (pl.concat([pairs(sets, scores)] * 2), "found the user .* more than once, expected once"),
        (pairs(sets, scores).cast({"score": pl.String}), "column 'score': .*found the type String"),
        (pairs(sets, scores).with_columns(user_id=pl.lit("x")), f"found none for {scores.size:,} of"),
    ):
        with pytest.raises(DataError, match=message):
            metatl.evaluate_scores(given, sets)
    with pytest.raises(ArgumentTypeError, match="scores: found list, expected an array"):
        metatl.evaluate_scores([[1.0]], sets)
    stranger = wide(sets, scores).with_columns(
        user_id=pl.when(pl.int_range(pl.len()) == 4).then(pl.lit("x")).otherwise("user_id")
    )
    with pytest.raises(DataError, match=r"row 5, column 'user_id': found the user 'x', who is not among"):
        metatl.evaluate_scores(stranger, sets)
    with pytest.raises(DataError, match="mean nothing without the candidates"):
        metatl.evaluate_scores(pairs(sets, scores))
    with pytest.raises(DataError, match="at least one negative"):
        metatl.evaluate_scores(scores[:, :1].copy())
    with pytest.raises(DataError, match="found no rows"):
        metatl.evaluate_scores(scores[:0])


def npy(array, cut=0, extra=b""):
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    return content[: len(content) - cut] + extra


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.npy", lambda scores: npy(scores, cut=5), "bytes, expected"),
        ("s.npy", lambda scores: npy(scores, extra=b"more"), "bytes, expected"),
        ("s.npy", lambda scores: npy(scores)[:20], "found a damaged array"),
        ("s.npy", lambda _: b"", "found a damaged array"),
        ("s.npy", lambda _: b"user,item\n", "found a damaged array"),
        ("s.npy", lambda scores: npy(scores > 0), "found bool, expected float32"),
        ("s.npy", lambda scores: npy(scores.astype(object)), "found object, expected float32"),
        ("s.npy", lambda scores: npy(np.asfortranarray(scores)), "Fortran order"),
        ("s.npz", npy, "found a damaged archive"),
        ("s.npz", lambda _: b"", "found a damaged archive"),
        ("s.csv", lambda _: b"", "found an empty file"),
        ("s.csv", lambda _: b"\n\n", "found an empty file"),
        ("s.csv", lambda _: b"user_id,a,b\n", "found 2 columns of scores"),
        ("s.csv", lambda _: b"user_id,item_id,score\n", "found none for"),
        ("s.csv", lambda _: b"user_id,a\n\xff,1\n", "line 2: found the byte 0xff, expected UTF-8 text$"),
        ("s.csv", lambda _: b"user_id,item_id,score\nu1,i1\n,", "line 2: found 2 fields, expected 3"),
        ("s.csv", lambda _: b"user_id,item_id,score\nu1,i1,high\n", "line 2, column 'score': found 'high'"),
        (
            "s.csv",
            lambda _: b"user_id,item_id,score\nu1,i1,1\nu1,i2,\n",
            "line 3, column 'score': found noth",
        ),
        ("s.parquet", lambda _: b"PAR1 of no use PAR1", "Parquet"),
        ("s.txt", lambda _: b"1 2 3", r"ends in '\.txt', expected \.npy"),
        ("s", lambda _: b"1 2 3", "ends in 'nothing'"),
    ],
)
def test_broken_files_are_named_in_one_line(name, content, message, sets, scores, tmp_path):
    path = tmp_path / name
    path.write_bytes(content(scores))
    with pytest.raises(DataError, match=message) as caught:
        metatl.evaluate_scores(path, sets)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["wide tsv", "quoted csv", "long csv"])
def test_what_is_wrong_far_inside_a_text_is_named_with_its_line(form, sets, scores, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch)
    path = write(form, tmp_path, sets, scores)
    lines = path.read_text().splitlines()
    place = len(lines) * 3 // 4
    separator = "\t" if form == "wide tsv" else ","
    fields = lines[place].split(separator)
    for text, found in (("high", "'high'"), ("", "nothing")):
        lines[place] = separator.join([*fields[:-1], text])
        path.write_text("\n".join(lines))
        name = "score" if form == "long csv" else f"score_{NEGATIVES}"
        with pytest.raises(
            DataError, match=f"line {place + 1}, column '{name}': found {found}, expected a"
        ) as e:
            metatl.evaluate_scores(path, sets)
        assert str(e.value).startswith(str(path))


@pytest.mark.parametrize("form", ["wide tsv", "quoted csv", "long csv"])
def test_rows_with_too_many_or_too_few_fields(form, sets, scores, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch)
    path = write(form, tmp_path, sets, scores)
    lines = path.read_text().splitlines()
    separator = "\t" if form == "wide tsv" else ","
    width = lines[0].count(separator) + 1
    for place in (1, len(lines) // 2, len(lines) - 1):
        for line, found in (
            (lines[place] + separator + "1", width + 1),
            (lines[place].rpartition(separator)[0], width - 1),
            ("", 0),
        ):
            text = [*lines[:place], line, *lines[place + 1 :], ""]
            path.write_text("\n".join(text))
            message = f"{path}, line {place + 1}: found {found} fields, expected {width}"
            with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
                metatl.evaluate_scores(path, sets)


def test_lines_may_end_inside_quotes(scores, tmp_path, monkeypatch):
    in_small_blocks(monkeypatch)
    users = [f"u{place}\n" * 5 for place in range(len(scores))]
    columns = {f"s{place}": scores[:, place] for place in range(scores.shape[1])}
    pl.DataFrame({"user_id": users, **columns}).write_csv(tmp_path / "s.csv")
    found = metatl.evaluate_scores(tmp_path / "s.csv", metrics=METRICS).metrics
    assert found == metatl.evaluate_scores(scores, metrics=METRICS).metrics
    # Each row takes six lines, the fields of scores being on the last of them.
    text = (tmp_path / "s.csv").read_text()
    (tmp_path / "s.csv").write_text(text.rstrip("\n")[:-1] + "x\n")
    last = 2 + 6 * (len(scores) - 1)
    with pytest.raises(DataError, match=rf"line {last}, column 's{NEGATIVES}': found '.*x', expected a numb"):
        metatl.evaluate_scores(tmp_path / "s.csv")


def test_text_is_read_as_numpy_reads_it(tmp_path):
    generator = np.random.default_rng(0)
    numbers = generator.integers(0, 2**32, (500, 20), dtype=np.uint32).view(np.float32)
    numbers = np.where(np.isnan(numbers), np.float32("inf"), numbers)
    # Shortest forms, seventeen digits, and spaces.
    forms = (str, lambda value: f"{float(value):.17g}", lambda value: f" {value}")
    text = [",".join(forms[row % 3](value) for value in numbers[row]) for row in range(len(numbers))]
    header = ",".join(f"s{place}" for place in range(20))
    (tmp_path / "s.csv").write_text("\n".join([header, *text]))
    scores = open_scores(tmp_path / "s.csv", None)
    found = np.concatenate([block for _, block in scores.blocks()])
    expected = [[float(value) for value in line.split(",")] for line in text]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found.astype(np.float32), numbers)
    assert (scores.rows, scores.columns) == numbers.shape


def test_a_row_group_that_is_damaged_or_lacks_numbers(sets, scores, tmp_path):
    path = write("row groups parquet", tmp_path, sets, scores)
    groups = -(-len(scores) // 11)
    holes = wide(sets, scores).with_columns(
        score_3=pl.when(pl.int_range(pl.len()) == 25).then(None).otherwise("score_3")
    )
    holes.write_parquet(tmp_path / "holes.parquet", row_group_size=11)
    with pytest.raises(DataError, match="row 26, column 'score_3': found nothing, expected a number"):
        metatl.evaluate_scores(tmp_path / "holes.parquet", sets)
    with pytest.raises(DataError, match="row 26, column 'score_3': found nothing, expected a number"):
        metatl.evaluate_scores(holes, sets)
    content = bytearray(path.read_bytes())
    place = len(content) * (groups - 1) // groups
    content[place : place + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DataError, match="found a damaged Parquet file") as caught:
        metatl.evaluate_scores(path, sets)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(sets, tmp_path):
    with pytest.raises(DataError, match=r"none\.npy: found no such file"):
        metatl.evaluate_scores(tmp_path / "none.npy", sets)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(DataError, match="found a folder"):
        metatl.evaluate_scores(tmp_path / "folder.npy", sets)
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(DataError, match=r"pipe\.npy: found a pipe .* that can be read more than once"):
        metatl.evaluate_scores(tmp_path / "pipe.npy", sets)
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(DataError, match=r"pipe\.parquet: found a pipe .* that can be read more than once"):
        metatl.evaluate_scores(np.zeros((3, 2), np.float32), tmp_path / "pipe.parquet")
    with pytest.raises(DataError, match=r"none\.parquet: found no such file"):
        metatl.evaluate_scores(np.zeros((3, 2), np.float32), tmp_path / "none.parquet")


def test_archives_that_lie(sets, scores, tmp_path):
    np.savez(tmp_path / "two.npz", one=scores, two=scores)
    with pytest.raises(DataError, match=r"expected one, or one that is called 'scores'"):
        metatl.evaluate_scores(tmp_path / "two.npz", sets)
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("scores.npy", npy(scores, cut=4))
    with pytest.raises(DataError, match=r"short\.npz: found fewer scores than its header says"):
        metatl.evaluate_scores(tmp_path / "short.npz", sets)
    damaged = bytearray((tmp_path / "two.npz").read_bytes())
    np.savez_compressed(tmp_path / "bad.npz", scores)
    damaged = bytearray((tmp_path / "bad.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "bad.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"bad\.npz: found a damaged archive"):
        metatl.evaluate_scores(tmp_path / "bad.npz", sets)


def test_a_header_that_claims_too_much(sets, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)}
    )
    (tmp_path / "huge.npy").write_bytes(header.getvalue() + b"\0" * 64)
    with pytest.raises(DataError, match=r"huge\.npy: (scores: )?found"):
        metatl.evaluate_scores(tmp_path / "huge.npy", sets)


def test_progress_ends_at_all(sets, scores, monkeypatch):
    monkeypatch.setattr(score_blocks, "BLOCK_BYTES", 4 * (1 + NEGATIVES) * 7)
    calls = []
    evaluate_scores(scores, sets, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (7, len(scores))
    assert calls[-1] == (len(scores), len(scores))
