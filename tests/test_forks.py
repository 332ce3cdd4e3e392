"""A forked child is refused at once where polars' thread pool would hang; a spawned one works."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import polars as pl
import pytest

import metatl

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_forked_child(call):
    """Run a call in a forked child; return the name of what it raised, or how the child ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            call()
            os.write(writing, b"nothing")
        except BaseException as error:  # noqa: BLE001 (the name of whatever it is)
            os.write(writing, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        raised = answer.read().decode()
    _, status = os.waitpid(child, 0)
    return raised or f"ended by {status}"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_public_entry_is_refused_at_once(tmp_path):
    wines = metatl.datasets.xwines()
    run = metatl.fit(wines, model="popularity", out=tmp_path / "run")
    split = metatl.cold_start_split(wines, k=3)
    sets = metatl.sample_candidate_sets(split, split.test)
    sets.save(tmp_path / "candidates.parquet")
    evaluation = metatl.evaluate(run, data=wines)
    evaluation.write_per_user(tmp_path / "users.parquet")
    frame = wines.to_frame()
    lists, targets = frame.with_columns(score=1.0), frame.rename({"item_id": "target"})
    scores = np.zeros(sets.candidates.shape, np.float32)
    vectors = np.zeros((len(sets.users), 2), np.float32)
    items = np.zeros((len(sets.item_ids), 2), np.float32)
    from metatl.evaluation.per_user_files import read_per_user

    calls = {
        "fit": lambda: metatl.fit("wines", model="popularity"),
        "load_run": lambda: metatl.load_run(tmp_path / "run"),
        "recommend": lambda: metatl.recommend(run, [[100001]]),
        "evaluate": lambda: metatl.evaluate(run, data=wines),
        "read_interactions": lambda: metatl.read_interactions(tmp_path / "run"),
        "from_frame": lambda: metatl.Interactions.from_frame(frame),
        "to_frame": wines.to_frame,
        "find_items": lambda: wines.find_items([100001]),
        "cold_start_split": lambda: metatl.cold_start_split(wines, k=3),
        "sample_candidate_sets": lambda: metatl.sample_candidate_sets(split, split.test),
        "save": lambda: sets.save(tmp_path / "again.parquet"),
        "load": lambda: metatl.CandidateSets.load(tmp_path / "candidates.parquet"),
        "evaluate_scores": lambda: metatl.evaluate_scores(scores, sets),
        "evaluate_lists": lambda: metatl.evaluate_lists(lists, targets),
        "evaluate_embeddings": lambda: metatl.evaluate_embeddings(sets, vectors, items, sets.item_ids),
        "compare_users": lambda: metatl.compare_users([evaluation, evaluation]),
        "read_per_user": lambda: read_per_user(tmp_path / "users.parquet"),
        "xwines": metatl.datasets.xwines,
        "item_names": metatl.datasets.item_names,
        "load data": lambda: metatl.datasets.load(frame),
    }
    raised = {name: in_forked_child(call) for name, call in calls.items()}
    assert raised == dict.fromkeys(calls, "ForkError")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kernels_work_in_a_forked_child():
    from metatl import _metatl

    scores = np.random.default_rng(0).random((100, 11), dtype=np.float32)
    assert in_forked_child(lambda: _metatl.rank_scores(scores)) == "nothing"


def count_rows(queue):
    queue.put(metatl.datasets.xwines().num_interactions)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_started_as_the_error_says_work(method):
    assert pl.DataFrame({"a": [1]}).height == 1
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=count_rows, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == 150_000
    child.join()
