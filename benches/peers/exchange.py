"""The exchange folder between our environment and those of the peers, and the code that runs a peer.

    exchange.json                     data set, K, seed, catalogue size, fingerprints
    train.parquet                     user, item, timestamp: the rows of the training users, by user and time
    {validation,test}_histories.npy   int64 (B, K), the oldest item first
    {validation,test}_candidates.npy  int64 (B, 101), the target in column 0
    SYSTEM/trial-N/*_scores.npy       float32 (B, 101), written by a peer
    SYSTEM/trial-N/model.pickle       the peer's model of that trial, for timing it again
    SYSTEM/result.json                the peer's version, trials and times

Users and items are numbered from 0. This file needs only numpy, and pyarrow for the training rows, so it runs
in every environment.
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FORMAT_VERSION = 2  # raised when models that an earlier version pickled do not serve any more
PARTS = ("validation", "test")
TIMING_ROUNDS = 5


@dataclass(frozen=True)
class Users:
    """New users: their histories and their candidates."""

    histories: np.ndarray
    candidates: np.ndarray


@dataclass(frozen=True)
class Exchange:
    """The input of a peer."""

    folder: Path
    k: int
    seed: int
    num_items: int
    num_train_users: int
    validation: Users
    test: Users

    @classmethod
    def read(cls, folder: Path) -> Exchange:
        record = json.loads((folder / "exchange.json").read_text(encoding="utf-8"))
        parts = [
            Users(np.load(folder / f"{part}_histories.npy"), np.load(folder / f"{part}_candidates.npy"))
            for part in PARTS
        ]
        numbers = {name: record[name] for name in ("k", "seed", "num_items", "num_train_users")}
        return cls(folder, validation=parts[0], test=parts[1], **numbers)

    def train_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users, items and timestamps (N,) of the training rows, by user and time."""
        from pyarrow import parquet

        table = parquet.read_table(self.folder / "train.parquet")
        return tuple(table[name].to_numpy() for name in ("user", "item", "timestamp"))

    def train_sequences(self) -> list[np.ndarray]:
        """Items of each training user, the oldest first."""
        users, items, _ = self.train_rows()
        return np.split(items, np.flatnonzero(np.diff(users)) + 1)


@dataclass(frozen=True)
class Trial:
    """A training of a peer and its results."""

    settings: dict[str, Any]
    epochs: int
    """Epochs after which the validation MRR was best; the scores are from that epoch."""
    epochs_trained: int
    training_seconds: float
    """The whole training, with the validations and the epochs after the best one."""
    scoring_seconds: float
    """Seconds to score the candidates of all test users: the least of several rounds."""
    own_way_seconds: float | None = None
    """Seconds of the peer's own evaluation of the test users, once; None if it has none for new users."""


def mean_reciprocal_rank(scores: np.ndarray) -> float:
    """MRR of column 0 among the columns; ties and what is not a number count against it.

    The figures of the page come from metatl's kernels; this one tells a peer when to stop.
    """
    beaten = scores[:, :1] > scores[:, 1:]
    return float((1 / (1 + (~beaten).sum(axis=1))).mean())


class Peer:
    """How one public implementation is trained and how it scores.

    Attributes
    ----------
    system
        The name of our system that it is compared with.
    package
        The distribution that it comes in.
    settings
        One entry per trial.
    patience
        Validations without a better MRR before a trial stops.
    """

    system: str
    package: str
    settings: Sequence[dict[str, Any]]
    patience = 3

    def train(self, exchange: Exchange, settings: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        """Train; yield the epochs so far and the model at each validation."""
        raise NotImplementedError

    def score(self, model: Any, histories: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Scores float32 (B, C) of the candidates (B, C) of users who showed histories (B, K)."""
        raise NotImplementedError

    def evaluate_its_own_way(self, model: Any, users: Users) -> bool:
        """Evaluate users with the peer's own evaluation; return False if it has none."""
        del model, users
        return False


def run_trial(peer: Peer, exchange: Exchange, settings: dict[str, Any], folder: Path) -> Trial:
    """Train once, keep the model that ranks the validation users best, and write its scores."""
    best, best_epochs, epochs, content, misses = -1.0, 0, 0, b"", 0
    begin = time.perf_counter()
    for epochs, model in peer.train(exchange, settings):
        validation = exchange.validation
        mrr = mean_reciprocal_rank(peer.score(model, validation.histories, validation.candidates))
        print(f"{peer.system} {settings}: {epochs} epochs, validation MRR {mrr:.4f}", flush=True)
        if mrr > best:
            best, best_epochs, content, misses = mrr, epochs, pickle.dumps(model), 0
        else:
            misses += 1
        if misses >= peer.patience:
            break
    training_seconds = time.perf_counter() - begin
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pickle").write_bytes(content)
    model = pickle.loads(content)  # noqa: S301 (its own, of a moment ago)
    for part in PARTS:
        users = getattr(exchange, part)
        scores = peer.score(model, users.histories, users.candidates)
        np.save(folder / f"{part}_scores.npy", np.ascontiguousarray(scores, np.float32))
    return Trial(settings, best_epochs, epochs, training_seconds, **time_scoring(peer, model, exchange.test))


def time_scoring(peer: Peer, model: Any, users: Users) -> dict[str, float | None]:
    """Time scoring the candidates, the least of several rounds, and the peer's own evaluation, once."""
    rounds = []
    for _ in range(TIMING_ROUNDS):
        begin = time.perf_counter()
        peer.score(model, users.histories, users.candidates)
        rounds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    has_own_way = peer.evaluate_its_own_way(model, users)
    own_way = time.perf_counter() - begin if has_own_way else None
    return {"scoring_seconds": min(rounds), "own_way_seconds": own_way}


def write_result(exchange: Exchange, peer: Peer, trials: list[Trial]) -> None:
    result = {
        "format_version": FORMAT_VERSION,
        "system": peer.system,
        "package": peer.package,
        "version": metadata.version(peer.package),
        "python": platform.python_version(),
        "seed": exchange.seed,
        "trials": [asdict(trial) for trial in trials],
    }
    path = exchange.folder / peer.system / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def read_trials(exchange: Exchange, peer: Peer) -> list[Trial]:
    """Read the trials that an earlier call of this version has finished."""
    path = exchange.folder / peer.system / "result.json"
    if not path.exists():
        return []
    result = json.loads(path.read_text(encoding="utf-8"))
    if result.get("format_version") != FORMAT_VERSION:
        return []
    return [Trial(**trial) for trial in result["trials"]]


def main(*peers: Callable[[], Peer]) -> None:
    """Run the trials of peers, or time one again; the main function of every peer's script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("exchange", type=Path)
    parser.add_argument("--system", help="only the peer of this system")
    parser.add_argument("--trials", type=int, help="how many, from the first; all where not given")
    parser.add_argument("--epochs", type=int, help="the most epochs of a trial, fewer than its settings say")
    parser.add_argument("--time", type=int, metavar="TRIAL", help="time the scoring of this trial again")
    arguments = parser.parse_args()
    exchange = Exchange.read(arguments.exchange.resolve())
    for make in peers:
        peer = make()
        if arguments.system not in (None, peer.system):
            continue
        folder = exchange.folder / peer.system
        if arguments.time is not None:
            content = (folder / f"trial-{arguments.time}" / "model.pickle").read_bytes()
            model = pickle.loads(content)  # noqa: S301 (written by the same script)
            print(json.dumps(time_scoring(peer, model, exchange.test)))
            continue
        trials = read_trials(exchange, peer)
        for number, settings in enumerate(peer.settings[: arguments.trials]):
            if arguments.epochs is not None:
                settings = {**settings, "epochs": min(arguments.epochs, settings["epochs"])}  # noqa: PLW2901
            if number < len(trials) and trials[number].settings == settings:
                continue
            del trials[number:]
            trials.append(run_trial(peer, exchange, settings, folder / f"trial-{number}"))
            write_result(exchange, peer, trials)
