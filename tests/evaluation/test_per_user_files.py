"""The per-user file: what is written is read, and what is not ours is told apart."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError

import metatl
from metatl.evaluation.per_user_files import read_per_user, write_per_user
from metatl.exceptions import DataError
from per_user_data import METRICS, frame_of, record_of, system
from planted_data import write_ring

KEY = "metatl.per_user"


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "ranks.parquet"
    record, frame = system("knn", 0)
    write_per_user(path, frame, record)
    return path, record, frame


def assert_refused(path, *parts):
    with pytest.raises(DataError) as caught:
        read_per_user(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_what_is_written_is_read(written):
    path, record, frame = written
    found, values = read_per_user(path)
    assert found == record
    assert_frame_equal(values, frame)
    # Others read it as a plain table.
    assert_frame_equal(pl.read_parquet(path), frame)
    assert json.loads(pl.read_parquet_metadata(path)[KEY]) == {
        "format_version": 2,
        "system": "knn",
        "ties": "worst",
        "metrics": METRICS,
        "candidates_sha256": "ab" * 32,
        "dataset_fingerprint": "cd" * 32,
        "split_sha256": "12" * 32,
    }


def test_records_are_frozen_and_checked():
    record = record_of("knn")
    with pytest.raises(ValidationError):
        record.system = "other"
    for changes in ({"ties": "median"}, {"metrics": "MRR"}, {"more": 1}):
        with pytest.raises(ValidationError):
            record_of("knn", **changes)


def test_integer_ids_and_further_columns_are_kept(tmp_path):
    frame = frame_of({"full": [0, 3]}).with_columns(user_id=pl.Series([2**40, 7]), note=pl.lit("x"))
    path = tmp_path / "ranks.parquet"
    write_per_user(path, frame, record_of("knn", candidates_sha256=None, dataset_fingerprint=None))
    record, values = read_per_user(path)
    assert_frame_equal(values, frame)
    assert (record.candidates_sha256, record.dataset_fingerprint) == (None, None)


def test_missing_damaged_and_foreign_files_are_told_apart(written, tmp_path):
    path, _, frame = written
    assert_refused(tmp_path / "nothing.parquet", "no such file")
    content = path.read_bytes()
    for length in (0, 3, len(content) // 2, len(content) - 1):
        damaged = tmp_path / "damaged.parquet"
        damaged.write_bytes(content[:length])
        assert_refused(damaged, "Parquet", "evaluate again")
    text = tmp_path / "ranks.csv"
    frame.write_csv(text)
    assert_refused(text, "found no Parquet")
    foreign = tmp_path / "foreign.parquet"
    frame.write_parquet(foreign)
    assert_refused(foreign, "without the record of an evaluation", "metatl-eval RUN --per-user FILE")


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.with_columns(MRR=pl.col("MRR").reverse()),
        lambda frame: frame.with_columns(rank=pl.col("rank") + 1),
        lambda frame: frame.with_columns(user_id=pl.col("user_id").reverse()),
        lambda frame: frame[:-1],
    ],
)
def test_values_that_were_changed_are_refused(written, change):
    path, _, frame = written
    metadata = {key: text for key, text in pl.read_parquet_metadata(path).items() if key.startswith("metatl")}
    frame.write_parquet(path, metadata=metadata)
    assert_frame_equal(read_per_user(path)[1], frame)
    change(frame).write_parquet(path, metadata=metadata)
    assert_refused(path, "found values that were changed (their SHA-256 differs); evaluate again")


def test_a_record_that_was_changed_is_refused_and_format_1_has_no_sha256(written):
    path, record, frame = written
    metadata = {key: text for key, text in pl.read_parquet_metadata(path).items() if key.startswith("metatl")}
    renamed = record.model_copy(update={"system": "mine"}).model_dump_json()
    frame.write_parquet(path, metadata={**metadata, KEY: renamed})
    assert_refused(path, "SHA-256 differs")
    frame.write_parquet(path, metadata={KEY: metadata[KEY]})
    assert_refused(path, "SHA-256 differs")
    old = record.model_copy(update={"format_version": 1}).model_dump_json()
    frame.write_parquet(path, metadata={KEY: old})
    assert read_per_user(path)[0] == record


RECORD = record_of("knn").model_dump()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", ["damaged record"]),
        ("{}", ["damaged record", "system"]),
        (json.dumps({**RECORD, "format_version": 3}), ["per-user format 3, expected 2"]),
        (json.dumps({**RECORD, "ties": "median"}), ["damaged record", "ties"]),
        (json.dumps({**RECORD, "more": 1}), ["damaged record", "more"]),
    ],
)
def test_records_that_are_not_ours(tmp_path, text, parts):
    path = tmp_path / "ranks.parquet"
    frame_of({"full": [0, 3]}).write_parquet(path, metadata={KEY: text})
    assert_refused(path, *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda frame: frame.drop("user_id"), ["column 'user_id'", "no such column"]),
        (lambda frame: frame.drop("equal"), ["column 'equal'", "no such column"]),
        (lambda frame: frame.drop("HR@10"), ["column 'HR@10'", "no such column", "MRR, HR@1, NDCG@10"]),
        (lambda frame: pl.concat([frame, frame[45:46]]), ["'u5'", "more than once", "'full'"]),
        (lambda frame: frame.with_columns(MRR=pl.lit(np.nan)), ["column 'MRR'", "80 values", "not finite"]),
        (lambda frame: frame.with_columns(MRR=pl.lit(np.inf)), ["column 'MRR'", "80 values", "not finite"]),
        (lambda frame: frame.with_columns(MRR=pl.lit(None, pl.Float64)), ["column 'MRR'", "80 values"]),
        (lambda frame: frame.with_columns(MRR=pl.lit(1.0, pl.Float32)), ["Float32", "expected Float64"]),
        (lambda frame: frame.with_columns(MRR=pl.lit("x")), ["column 'MRR'", "String"]),
        (lambda frame: frame.with_columns(ranking=pl.lit("half")), ["'half'", "sampled, full, corrected"]),
        (lambda frame: frame.with_columns(ranking=pl.lit(1)), ["column 'ranking'", "expected String"]),
        (lambda frame: frame.with_columns(ranking=pl.lit(None, pl.String)), ["column 'ranking'", "None"]),
        (lambda frame: frame.with_columns(user_id=pl.lit(None, pl.String)), ["column 'user_id'", "80 empty"]),
    ],
)
def test_frames_that_cannot_be_compared(written, change, parts):
    path, record, frame = written
    changed = change(frame)
    changed.write_parquet(path, metadata={KEY: record.model_dump_json()})
    assert_refused(path, *parts)
    # Nor are they written.
    path.write_text("old")
    with pytest.raises(DataError, match=str(path)):
        write_per_user(path, changed, record)
    assert path.read_text() == "old"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    record, frame = system("knn", 0)
    with pytest.raises(OSError, match="nowhere"):
        write_per_user(tmp_path / "nowhere" / "ranks.parquet", frame, record)


@pytest.fixture(scope="module")
def ring_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ring.csv"
    return write_ring(path, users=400, items=200, first=0, gap=1_000_000)


def test_evaluations_are_compared_without_a_file(ring_file, tmp_path):
    evaluations = [
        metatl.evaluate(metatl.fit(ring_file, model=model, device="cpu"), metrics="MRR,HR@3", name=name)
        for model, name in (("popularity", None), ("knn", "neighbours"))
    ]
    report = metatl.compare_users(evaluations, resamples=99)
    assert (report.baseline, report.systems) == ("popularity (tuned)", ("neighbours",))
    assert (report.rankings, report.metrics) == (("sampled", "full"), ("MRR", "HR@3"))
    # On a ring the neighbours say what comes next.
    assert all(found.low > 0 for found in report.differences)
    for found in report.differences:
        estimate = getattr(evaluations[1].metrics, found.ranking)[found.metric]
        assert found.mean == pytest.approx(estimate.value)
    paths = [tmp_path / f"{index}.parquet" for index in range(2)]
    for path, evaluation in zip(paths, evaluations, strict=True):
        evaluation.write_per_user(path)
        record, frame = read_per_user(path)
        assert record == evaluation.record
        assert_frame_equal(frame, evaluation.per_user)
    assert metatl.compare_users([read_per_user(path) for path in paths], resamples=99) == report
    assert metatl.compare_users([evaluations[0], read_per_user(paths[1])], resamples=99) == report


def test_a_run_is_compared_with_the_scores_of_another_system(ring_file):
    run = metatl.fit(ring_file, model="knn", device="cpu")
    split = run.record.split.split(metatl.read_interactions(ring_file))
    sets = metatl.sample_candidate_sets(split, split.test)
    scores = np.random.default_rng(0).random(sets.candidates.shape).astype(np.float32)
    report = metatl.compare_users(
        [metatl.evaluate_scores(scores, sets, name="random"), metatl.evaluate(run)], resamples=99
    )
    assert (report.baseline, report.systems, report.rankings) == ("random", ("knn (tuned)",), ("sampled",))
    assert report.candidates_sha256 == sets.sha256
    assert all(found.low > 0 for found in report.differences)
    other = metatl.sample_candidate_sets(split, split.test, seed=1)
    with pytest.raises(DataError, match=r"^random and knn .*: found the candidates"):
        metatl.compare_users([metatl.evaluate_scores(scores, other, name="random"), metatl.evaluate(run)])
