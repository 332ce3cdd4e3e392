"""The readers of metatl, a small valid file for each, and what their answers must be.

`write_seeds` writes the files. A reading is a value that two answers can be compared by.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import math
import re
import shutil
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import metatl
from candidate_data import small_candidates, small_split
from metatl.data.user_attributes import read_attributes
from metatl.datasets.catalogue import PublicDataSet
from metatl.datasets.fetching import RECORD_NAME, fetch
from metatl.evaluation.external.item_ids import read_items
from metatl.evaluation.external.ranked_lists import read_lists, read_targets
from metatl.evaluation.per_user_files import read_per_user
from metatl.experiments.tuned_settings import TunedSettings, read_tuned_settings, write_tuned_settings
from metatl.runs.checkpoints import CheckpointFiles, TrainingState, load_checkpoint, save_checkpoint
from metatl.runs.metrics_file import read_fit_report, read_metrics
from metatl.training.selection import read_selection
from mutations import (
    damage_json,
    damage_npy,
    damage_parquet,
    damage_safetensors,
    damage_text,
    gzipped,
    zipped,
)
from planted_data import write_ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mutations import Mutator

USERS = 80
DIM = 4


class Unsure:
    """What an oracle answers about a file that it does not understand."""


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes
    ----------
    file : str
        The file below the folder of seeds; it is damaged in a copy of its own folder.
    mutator : callable
        How it is damaged.
    read : callable
        Path of the file to a reading.
    oracle : callable or None
        Content of the file to the reading that it must have, or to `Unsure`.
    is_protected : bool
        Whether a hash covers what is read: then every answer is the one of the seed.
    """

    file: str
    mutator: Mutator
    read: Callable[[Path], Any]
    oracle: Callable[[bytes], Any] | None = None
    is_protected: bool = False


def write_seeds(folder: Path) -> None:
    """Write a valid file for every reader."""
    _write_interactions(folder)
    _write_evaluation_inputs(folder)
    _write_runs(folder)
    _write_data_set(folder)


def _write_interactions(folder: Path) -> None:
    text = write_ring(folder / "ring.csv", 30, items=40).read_text()
    rows = [line.split(",") for line in text.splitlines()[1:]]
    numbered = [(user[1:], item[1:], time) for user, item, time in rows]
    names = ("user_id", "item_id", "timestamp")
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / "ring.tsv").write_text(text.replace(",", "\t"))
    (folder / "ratings.dat").write_text(
        "".join(f"{user}::{item}::4::{time}\n" for user, item, time in numbered)
    )
    (folder / "ring.inter").write_text("\n".join([header, *map("\t".join, rows)]) + "\n")
    lines = [
        json.dumps({"user_id": user, "item_id": item, "timestamp": int(time)}) for user, item, time in rows
    ]
    (folder / "ring.jsonl").write_text("\n".join(lines) + "\n")
    frame = pl.DataFrame(
        [(int(user), item, int(time)) for user, item, time in numbered], schema=names, orient="row"
    )
    frame.with_columns(pl.from_epoch("timestamp")).write_parquet(folder / "ring.parquet")
    for name in INTERACTION_FILES:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), 1, mtime=0))


def _write_evaluation_inputs(folder: Path) -> None:
    sets = small_candidates(small_split(USERS))
    sets.save(folder / "candidates.parquet")
    generator = np.random.default_rng(0)
    scores = generator.random(sets.candidates.shape, dtype=np.float32)
    np.save(folder / "scores.npy", scores)
    np.savez_compressed(folder / "scores.npz", scores)
    wide = pl.DataFrame({"user_id": sets.user_ids, **{f"s{n}": column for n, column in enumerate(scores.T)}})
    items = sets.item_ids.gather(sets.candidates.ravel())
    users = sets.user_ids.gather(np.repeat(np.arange(len(scores)), scores.shape[1]))
    long = pl.DataFrame({"user_id": users, "item_id": items, "score": scores.ravel()})
    for name, table in (("wide", wide), ("long", long)):
        table.write_parquet(folder / f"{name}.parquet")
        table.write_csv(folder / f"{name}.csv")
    long.write_csv(folder / "long.tsv", separator="\t")
    np.save(folder / "queries.npy", generator.random((len(scores), DIM), dtype=np.float32))
    np.save(folder / "items.npy", generator.random((len(sets.item_ids), DIM), dtype=np.float32))
    ids = pl.DataFrame({"item_id": sets.item_ids, "count": np.arange(len(sets.item_ids))})
    ids.write_parquet(folder / "ids.parquet")
    ids.write_csv(folder / "ids.csv")
    lines = [f"{user} Q0 {item} 1 {score} tag" for user, item, score in long.rows()]
    (folder / "run.txt").write_text("\n".join(lines) + "\n")
    targets = sets.item_ids.gather(sets.candidates[:, 0])
    lines = [f"{user} 0 {item} 1" for user, item in zip(sets.user_ids, targets, strict=True)]
    (folder / "qrels.txt").write_text("\n".join(lines) + "\n")
    attributes = pl.DataFrame(
        {"user_id": sets.user_ids, "age": np.arange(len(scores)) % 3 * 10, "plan": "free"}
    )
    attributes.write_parquet(folder / "attributes.parquet")
    attributes.write_csv(folder / "attributes.csv")
    metatl.evaluate_scores(folder / "scores.npy", sets).write_per_user(folder / "users.parquet")


def _write_runs(folder: Path) -> None:
    data = write_ring(folder / "train.csv", 200, items=130)
    small = {"max_steps": 2, "eval_every": 1, "dim": 4, "batch_size": 8}
    metatl.fit(data, model="markov", out=folder / "markov")
    metatl.fit(data, model="metatl", out=folder / "whole", config=small, refit=True)
    shutil.rmtree(folder / "whole" / "tensorboard")
    metatl.fit(data, model="metatl", out=folder / "metatl", config=small)
    shutil.rmtree(folder / "metatl" / "tensorboard")
    generator = np.random.default_rng(0)
    tensors = {
        "item": generator.random((9, DIM), dtype=np.float32),
        "generator.cpu": np.arange(20, dtype=np.uint8),
    }
    history = [{"step": 2, "loss": 0.25, "MRR": 0.5}, {"step": 4, "loss": 0.125, "MRR": 0.25}]
    state = TrainingState(step=4, best_step=2, best_mrr=0.5, history=history)
    (folder / "checkpoints").mkdir()
    save_checkpoint(folder / "checkpoints" / "last.safetensors", tensors, dataclasses.asdict(state))
    (folder / "tuned").mkdir()
    settings = TunedSettings(
        model="metatl", preset="tuned", config={"dim": 8, "meta_lr": 0.01}, validation_mrr=0.5, trials=3,
        data="wines", dataset_fingerprint="0" * 64, k=3, seed=0,
    )  # fmt: skip
    write_tuned_settings(folder / "tuned", settings)


DATA_SET = PublicDataSet(
    name="rings", title="", homepage="", urls=("https://127.0.0.1:9/rings.zip",), licence="", citation="",
    max_bytes=10**6, member="rings/ring.csv",
)  # fmt: skip


def _write_data_set(folder: Path) -> None:
    home = folder / "data" / DATA_SET.name
    home.mkdir(parents=True)
    with zipfile.ZipFile(home / "rings.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "ring.csv", DATA_SET.member)
        archive.writestr("rings/README", "x")
    fetch(DATA_SET, folder / "data")


# Readings.


def _frame(frame: pl.DataFrame) -> Any:
    return frame.columns, [str(dtype) for dtype in frame.dtypes], repr(frame.rows())


def _array(array: np.ndarray) -> Any:
    return array.dtype.str, array.shape, array.tobytes()


def _read_interactions(path: Path) -> Any:
    rows = metatl.read_interactions(path).to_frame()
    times = rows["timestamp"].dt.timestamp("us").to_list()
    return sorted(zip(rows["user_id"].cast(str), rows["item_id"].cast(str), times, strict=True))


def _read_candidates(path: Path) -> Any:
    sets = metatl.CandidateSets.load(path)
    return (
        sets.sha256,
        _array(sets.candidates),
        sets.user_ids.to_list(),
        sets.item_ids.to_list(),
        sets.protocol,
    )


def _sets(path: Path) -> metatl.CandidateSets:
    return metatl.CandidateSets.load(path.parent / "candidates.parquet")


def _read_scores(path: Path) -> Any:
    evaluation = metatl.evaluate_scores(path, _sets(path), metrics="MRR", num_threads=1)
    return evaluation.per_user["user_id"].to_list(), evaluation.per_user["rank"].to_list()


def _read_embeddings(path: Path) -> Any:
    names = {name: path.parent / f"{name}.npy" for name in ("queries", "items")}
    ids = pl.read_parquet(path.parent / "ids.parquet")
    evaluation = metatl.evaluate_embeddings(
        _sets(path), names["queries"], names["items"], ids, metrics="MRR", top=0, num_threads=1
    )
    return evaluation.per_user["user_id"].to_list(), evaluation.per_user["rank"].to_list()


def _read_per_user(path: Path) -> Any:
    record, frame = read_per_user(path)
    columns = ("user_id", "ranking", "rank", "greater", "equal", *record.metrics)
    return record.model_dump(mode="json"), [frame[name].to_list() for name in columns]


def _read_checkpoint(path: Path) -> Any:
    tensors, record = load_checkpoint(path)
    return sorted((name, _array(array)) for name, array in tensors.items()), record


def _read_state(path: Path) -> Any:
    checkpoint = CheckpointFiles(path.parent).load_last()
    assert checkpoint is not None
    state = checkpoint.state if hasattr(checkpoint, "state") else TrainingState(**checkpoint.record)
    return sorted((name, _array(array)) for name, array in checkpoint.tensors.items()), dataclasses.asdict(
        state
    )


def _read_run(path: Path) -> Any:
    run = metatl.load_run(path.parent)
    record = run.record
    tensors = sorted((name, _array(array)) for name, array in run.model.tensors().items())
    settings = (
        record.model,
        record.preset,
        record.num_items,
        record.split.k,
        run.config.model_dump(mode="json"),
    )
    return settings, tensors, run.item_ids.to_list(), run.item_counts.tolist()


def _read_data_set(path: Path) -> Any:
    fetched = fetch(DATA_SET, path.parent.parent)
    return fetched.path.read_bytes()


def _read_archive(path: Path) -> Any:
    record = {
        "url": "",
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (path.parent / RECORD_NAME).write_text(json.dumps(record))
    return _read_data_set(path)


# Oracles: what plain Python reads, if the file is so plain that there is no doubt.

PLAIN_TEXT_ID = re.compile(r"[iu][0-9]{1,6}")
PLAIN_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
PLAIN_TIME = re.compile(r"[1-9][0-9]{9}")
PLAIN_SCORE = re.compile(r"[0-9]\.[0-9]{1,18}")


def _lines(content: bytes) -> list[str] | None:
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        return None
    if re.search(r'["\\\x00-\x08\x0b-\x1f]', text):
        return None
    return [line for line in text.split("\n") if line]


def _table(
    separator: str, header: str | None, pattern: re.Pattern[str], columns: int
) -> Callable[[bytes], Any]:
    """Read lines of users, items and times; the time is the last field."""

    def oracle(content: bytes) -> Any:
        lines = _lines(content)
        if not lines or (header is not None and lines.pop(0) != header):
            return Unsure
        rows = [line.split(separator) for line in lines]
        plain = all(
            len(row) == columns
            and all(pattern.fullmatch(one) for one in row[:2])
            and PLAIN_TIME.fullmatch(row[-1])
            and all(PLAIN_NUMBER.fullmatch(one) for one in row[2:-1])
            for row in rows
        )
        return _first_times((row[0], row[1], int(row[-1])) for row in rows) if plain else Unsure

    return oracle


def _first_times(rows: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Keep the first row of a user with an item; times become microseconds."""
    first: dict[tuple[str, str], int] = {}
    for user, item, seconds in rows:
        first[user, item] = min(seconds * 10**6, first.get((user, item), seconds * 10**6))
    return sorted((user, item, time) for (user, item), time in first.items())


def _json_lines(content: bytes) -> Any:
    try:
        objects = [json.loads(line) for line in content.decode("ascii").split("\n") if line]
    except ValueError:
        return Unsure
    plain = all(
        isinstance(one, dict)
        and set(one) == {"user_id", "item_id", "timestamp"}
        and all(
            isinstance(one[name], str) and PLAIN_TEXT_ID.fullmatch(one[name])
            for name in ("user_id", "item_id")
        )
        and type(one["timestamp"]) is int
        and PLAIN_TIME.fullmatch(str(one["timestamp"]))
        for one in objects
    )
    if not plain or b"\\" in content:
        return Unsure
    return _first_times((one["user_id"], one["item_id"], one["timestamp"]) for one in objects)


def _gz(oracle: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def unpacked(content: bytes) -> Any:
        try:
            return oracle(gzip.decompress(content))
        except (OSError, EOFError, ValueError, zipfile.zlib.error):
            return Unsure

    return unpacked


def _ranks(scores: np.ndarray) -> list[float]:
    """The rank of column 0, worst among equals."""
    return [float(np.sum(row[1:] >= row[0]) + 1) for row in scores]


def _npy(content: bytes) -> Any:
    try:
        scores = np.load(io.BytesIO(content), allow_pickle=False)
    except BaseException:  # noqa: BLE001
        return None
    return _ranks(scores) if isinstance(scores, np.ndarray) and scores.ndim == 2 else None


def _npz(content: bytes) -> Any:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            (name,) = archive.files
            return _ranks(archive[name])
    except BaseException:  # noqa: BLE001
        return None


def _wide_csv(content: bytes) -> Any:
    rows = [line.split(",") for line in (_lines(content) or [""])[1:]]
    plain = all(len(row) == len(rows[0]) and all(map(PLAIN_SCORE.fullmatch, row[1:])) for row in rows)
    # The reader compares the users of the rows with those of the candidates.
    return _ranks(np.array([row[1:] for row in rows], dtype=np.float32)) if plain and rows else Unsure


def _only_ranks(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path)[1]


def _trec(columns: tuple[int, ...], width: int) -> Callable[[bytes], Any]:
    """Read some fields of lines that are separated by single spaces; the last one is a number."""

    def oracle(content: bytes) -> Any:
        rows = [line.split(" ") for line in _lines(content) or [""]]
        plain = all(
            len(row) == width
            and all(PLAIN_TEXT_ID.fullmatch(row[index]) for index in (0, 2))
            and (width == 4 or PLAIN_SCORE.fullmatch(row[4]))
            and (width == 6 or row[3] == "1")
            for row in rows
        )
        if not plain:
            return Unsure
        return [tuple(float(row[index]) if index == 4 else row[index] for index in columns) for row in rows]

    return oracle


INTERACTION_FILES = ("ring.csv", "ring.tsv", "ratings.dat", "ring.inter", "ring.jsonl", "ring.parquet")
_INTERACTION_ORACLES = {
    "ring.csv": _table(",", "user_id,item_id,timestamp", PLAIN_TEXT_ID, 3),
    "ring.tsv": _table("\t", "user_id\titem_id\ttimestamp", PLAIN_TEXT_ID, 3),
    "ratings.dat": _table("::", None, PLAIN_NUMBER, 4),
    "ring.inter": _table("\t", "user_id:token\titem_id:token\ttimestamp:float", PLAIN_TEXT_ID, 3),
    "ring.jsonl": _json_lines,
}


def _interaction_readers() -> dict[str, Reader]:
    readers = {}
    for name in INTERACTION_FILES:
        mutator = damage_parquet if name.endswith("parquet") else damage_text
        mutator = damage_json_line if name.endswith("jsonl") else mutator
        oracle = _INTERACTION_ORACLES.get(name)
        readers[name] = Reader(name, mutator, _read_interactions, oracle)
        packed = None if oracle is None else _gz(oracle)
        readers[f"{name}.gz"] = Reader(f"{name}.gz", gzipped(mutator), _read_interactions, packed)
    return readers


def damage_json_line(random: Any, content: bytes) -> bytes:
    """Damage one line as JSON, or the file as text."""
    if random.random() < 0.4:
        return damage_text(random, content)
    lines = content.split(b"\n")
    index = random.randrange(len(lines))
    lines[index] = damage_json(random, lines[index])
    return b"\n".join(lines)


READERS = {
    **_interaction_readers(),
    "candidates": Reader("candidates.parquet", damage_parquet, _read_candidates, is_protected=True),
    "scores.npy": Reader("scores.npy", damage_npy, _only_ranks(_read_scores), _npy),
    "scores.npz": Reader("scores.npz", zipped(damage_npy), _only_ranks(_read_scores), _npz),
    "wide scores, parquet": Reader("wide.parquet", damage_parquet, _read_scores),
    "long scores, parquet": Reader("long.parquet", damage_parquet, _read_scores),
    "wide scores, csv": Reader("wide.csv", damage_text, _only_ranks(_read_scores), _wide_csv),
    "long scores, csv": Reader("long.csv", damage_text, _read_scores),
    "long scores, tsv": Reader("long.tsv", damage_text, _read_scores),
    "queries.npy": Reader("queries.npy", damage_npy, _read_embeddings),
    "items.npy": Reader("items.npy", damage_npy, _read_embeddings),
    "item ids, parquet": Reader("ids.parquet", damage_parquet, lambda path: _frame(read_items(path))),
    "item ids, csv": Reader("ids.csv", damage_text, lambda path: _frame(read_items(path))),
    "TREC run": Reader("run.txt", damage_text, lambda path: read_lists(path).rows(), _trec((0, 2, 4), 6)),
    "TREC qrels": Reader(
        "qrels.txt", damage_text, lambda path: read_targets(path).rows.rows(), _trec((0, 2), 4)
    ),
    "lists, parquet": Reader("long.parquet", damage_parquet, lambda path: _frame(read_lists(path))),
    "targets, parquet": Reader(
        "candidates.parquet", damage_parquet, lambda path: _frame(read_targets(path).rows)
    ),
    "attributes, parquet": Reader(
        "attributes.parquet", damage_parquet, lambda path: _frame(read_attributes(path))
    ),
    "attributes, csv": Reader("attributes.csv", damage_text, lambda path: _frame(read_attributes(path))),
    "per-user file": Reader("users.parquet", damage_parquet, _read_per_user, is_protected=True),
    "checkpoint": Reader(
        "checkpoints/last.safetensors", damage_safetensors, _read_checkpoint, is_protected=True
    ),
    "training state": Reader(
        "checkpoints/last.safetensors", damage_safetensors, _read_state, is_protected=True
    ),
    "weights of a run": Reader("markov/best.safetensors", damage_safetensors, _read_run, is_protected=True),
    "run.json of Markov": Reader("markov/run.json", damage_json, _read_run, is_protected=True),
    "run.json of MetaTL": Reader("metatl/run.json", damage_json, _read_run, is_protected=True),
    "items.parquet": Reader("markov/items.parquet", damage_parquet, _read_run, is_protected=True),
    "metrics.json": Reader("markov/metrics.json", damage_json, lambda path: read_metrics(path.parent)),
    "fit in metrics.json": Reader(
        "whole/metrics.json", damage_json, lambda path: read_fit_report(path.parent).model_dump()
    ),
    "selection.json": Reader(
        "whole/selection.json", damage_json, lambda path: read_selection(path.parent).model_dump()
    ),
    "tuned settings": Reader(
        "tuned/metatl.best.json", damage_json, lambda path: read_tuned_settings(path.parent)
    ),
    "download.json": Reader("data/rings/download.json", damage_json, _read_data_set),
    "archive": Reader("data/rings/rings.zip", zipped(damage_text), _read_archive),
}


def is_same(one: Any, other: Any) -> bool:
    """Whether two readings are equal, NaN included."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return repr(one) == repr(other)
