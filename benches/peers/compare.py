"""Compare our baselines with the peers, with one kernel and one tie rule, and write `docs/baselines.md`.

It reads the results of the peers from their exchange folders. It runs a peer only to time it again, if its
environment exists. Our systems are fitted once and stored beside the peers' scores; a changed setting or
``--refit`` fits them again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from exchange import PARTS, TIMING_ROUNDS, Exchange, Trial
from metatl import _metatl, datasets
from metatl.common.files import write_json
from metatl.data.histories import Histories
from metatl.metrics.rank_metrics import mean_metrics
from metatl.models import find_system
from metatl.ranking.rank import encode_blocks, rank_candidates
from metatl.runs.run_directory import Run, SplitSettings, load_run, read_record
from metatl.runs.training_directory import is_complete
from metatl.training.fit import configure, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exchange import Users
    from metatl.data.interactions import Interactions

ROOT = Path(__file__).resolve().parents[2]
ACCURACY_BAR = 0.98
SPEED_BAR = 5.0
PRESET = "tuned"


@dataclass(frozen=True)
class Comparison:
    """A system, the script of its peer and the name of the environment that the script runs in."""

    system: str
    peer: str
    script: str
    environment: str
    own_way: Literal["candidates", "catalogue"] | None
    """What the peer's own evaluation of new users ranks; None if it has none."""
    trials: tuple[dict[str, Any], ...]
    """Our trials, as differences from `tuned`. The first n are fitted, if the peer has n trials."""


COMPARISONS = (
    Comparison(
        "sasrec",
        "RecTools",
        "rectools_models.py",
        "torch",
        "catalogue",
        (
            {},
            {"dropout": 0.3},
            {"shuffle_share": 0.0},
            {"max_length": 20},
            {"item_dropout": 0.3},
            {"blocks": 2},
        ),
    ),
    Comparison(
        "bert4rec",
        "RecTools",
        "rectools_models.py",
        "torch",
        "catalogue",
        (
            {},
            {"dropout": 0.3},
            {"last_share": 0.4},
            {"item_dropout": 0.4},
            {"mask_share": 0.4},
            {"blocks": 2},
        ),
    ),
    Comparison(
        "gru4rec",
        "RecBole",
        "recbole_gru4rec.py",
        "torch",
        "candidates",
        (
            {},
            {"item_dropout": 0.3},
            {"shuffle_share": 0.0},
            {"start_length": 2.0},
            {"state_dropout": 0.3},
            {"hidden": 64},
        ),
    ),
    Comparison(
        "bpr",
        "implicit",
        "implicit_bpr.py",
        "implicit",
        None,
        (
            {},
            {"user_dropout": 0.3},
            {"start_length": 2.5},
            {"fold_in_regularisation": 0.001},
            {"regularisation": 0.001},
            {"lr": 0.01},
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """The best trial by validation MRR: one side of a row."""

    trial: int
    trials: int
    settings: dict[str, Any]
    validation_mrr: float
    test_mrr: float
    training_seconds: float
    evaluation_seconds: float
    own_way_seconds: float | None = None
    """Seconds of the peer's own evaluation of the test users, or of ours of the same task."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    title: str
    peer: str
    version: str
    ours: Outcome
    theirs: Outcome
    own_way: str | None
    timed_together: bool
    """Whether both were timed one after the other; otherwise the peer was timed when it was trained."""

    @property
    def accuracy_ratio(self) -> float:
        return self.ours.test_mrr / self.theirs.test_mrr

    @property
    def speed_ratio(self) -> float:
        return self.theirs.evaluation_seconds / self.ours.evaluation_seconds

    @property
    def missed(self) -> list[str]:
        """Describe the missed bars."""
        bars = []
        if self.accuracy_ratio < ACCURACY_BAR:
            bars.append(f"{self.title}: MRR is {self.accuracy_ratio:.3f} × that of {self.peer}")
        if self.speed_ratio < SPEED_BAR:
            bars.append(f"{self.title}: evaluation is {self.speed_ratio:.1f} × as fast as with {self.peer}")
        return bars

    def markdown(self) -> str:
        ours, theirs = self.ours, self.theirs
        cells = (
            self.title,
            f"{self.peer} {self.version}",
            f"{ours.trials} / {theirs.trials}",
            f"{ours.validation_mrr:.4f} / {theirs.validation_mrr:.4f}",
            f"{ours.test_mrr:.4f} / {theirs.test_mrr:.4f}",
            f"{self.accuracy_ratio:.3f}",
            "yes" if self.accuracy_ratio >= ACCURACY_BAR else "**no**",
            f"{ours.training_seconds:,.0f} / {theirs.training_seconds:,.0f}",
            f"{ours.evaluation_seconds:.4f} / {theirs.evaluation_seconds:.4f}"
            + ("" if self.timed_together else " ¹"),
            f"{self.speed_ratio:.1f} ×",
            "yes" if self.speed_ratio >= SPEED_BAR else "**no**",
            self._own_way(),
        )
        return f"| {' | '.join(cells)} |"

    def _own_way(self) -> str:
        ours, theirs = self.ours.own_way_seconds, self.theirs.own_way_seconds
        if ours is None or theirs is None:
            return "none"
        return f"{self.own_way}: {ours:.4f} / {theirs:.2f}, {theirs / ours:.0f} ×"


@dataclass(frozen=True)
class Section:
    """The rows of a data set."""

    name: str
    record: dict[str, Any]
    num_test_users: int
    num_validation_users: int
    rows: list[Row]


def candidate_mrr(scores: np.ndarray) -> float:
    """Compute the MRR of column 0 of scores (B, C) with our kernel; ties count against the target."""
    return mean_metrics(*_metatl.rank_scores(np.ascontiguousarray(scores, np.float32)))["MRR"]


def best_trial(validation: Sequence[float]) -> int:
    """Number of the trial with the best validation MRR, the first of equals."""
    return int(np.argmax(validation))


def read_peer(exchange: Exchange, system: str) -> tuple[dict[str, Any], Outcome]:
    """Rank a peer's scores; return the result file of its script and its best trial."""
    folder = exchange.folder / system
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    trials = [Trial(**trial) for trial in result["trials"]]
    mrr = [
        {part: candidate_mrr(read_scores(exchange, system, number, part)) for part in PARTS}
        for number in range(len(trials))
    ]
    best = best_trial([values["validation"] for values in mrr])
    trial = trials[best]
    return result, Outcome(
        best,
        len(trials),
        {**trial.settings, "epochs": f"{trial.epochs} of {trial.settings['epochs']} allowed"},
        mrr[best]["validation"],
        mrr[best]["test"],
        trial.training_seconds,
        trial.scoring_seconds,
        trial.own_way_seconds,
    )


def read_scores(exchange: Exchange, system: str, trial: int, part: str) -> np.ndarray:
    scores = np.load(exchange.folder / system / f"trial-{trial}" / f"{part}_scores.npy")
    expected = getattr(exchange, part).candidates.shape
    if scores.shape != expected:
        raise SystemExit(f"{system}, trial {trial}: found {part} scores {scores.shape}, expected {expected}")
    return scores


def fit_ours(
    interactions: Interactions,
    exchange: Exchange,
    record: dict[str, Any],
    system: str,
    overrides: dict[str, Any],
    folder: Path,
    *,
    refit: bool = False,
) -> tuple[Run, float]:
    """Fit one of our systems, or load the run of an earlier call; return it and its training seconds."""
    config = configure(find_system(system, PRESET), PRESET, overrides, k=exchange.k).model_dump(mode="json")
    seconds = folder.with_suffix(".json")
    if not refit and folder.exists() and is_complete(folder) and seconds.exists():
        held = read_record(folder)
        if held.config == config and held.split_fingerprint == record["split_fingerprint"]:
            content = json.loads(seconds.read_text(encoding="utf-8"))
            return load_run(folder, device="cpu"), content["training_seconds"]
    begin = time.perf_counter()
    run = fit(
        interactions,
        model=system,
        preset=PRESET,
        config=overrides,
        split=SplitSettings(k=exchange.k),
        seed=exchange.seed,
        out=folder,
        device="cpu",
        overwrite=True,
    )
    training_seconds = time.perf_counter() - begin
    if run.record.split_fingerprint != record["split_fingerprint"]:
        raise SystemExit(f"{exchange.folder}: it was exported from other data")
    write_json(seconds, {"training_seconds": training_seconds})
    return run, training_seconds


def our_mrr(run: Run, users: Users) -> float:
    return mean_metrics(*rank_candidates(run.model, users.histories, users.candidates))["MRR"]


def time_ours(run: Run, users: Users, what: Literal["candidates", "catalogue"] = "candidates") -> float:
    """Time encoding all users, ranking candidates or all items, and averaging: the least of some rounds."""
    targets, excluded = users.candidates[:, 0].copy(), Histories.from_matrix(users.histories)
    rounds = []
    for _ in range(TIMING_ROUNDS + 1):
        begin = time.perf_counter()
        if what == "candidates":
            mean_metrics(*rank_candidates(run.model, users.histories, users.candidates, num_threads=1))
        else:
            for rows, block in encode_blocks(run.model, users.histories, num_threads=1):
                mean_metrics(*block.rank_catalogue(targets[rows], excluded.select(rows)))
        rounds.append(time.perf_counter() - begin)
    return min(rounds[1:])


def time_peer(exchange: Exchange, comparison: Comparison, trial: int) -> dict[str, Any] | None:
    """Time a peer's scoring again in its own process; None if its environment does not exist."""
    python = ROOT / f".venv-peers-{comparison.environment}" / "bin" / "python"
    model = exchange.folder / comparison.system / f"trial-{trial}" / "model.pickle"
    if not python.exists() or not model.exists():
        return None
    script = ROOT / "benches" / "peers" / comparison.script
    command = [python, script, exchange.folder, "--system", comparison.system, "--time", str(trial)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def compare(
    interactions: Interactions,
    exchange: Exchange,
    record: dict[str, Any],
    comparison: Comparison,
    *,
    refit: bool = False,
) -> Row:
    """Fit as many of our trials as the peer has, and compare the best of both."""
    system = comparison.system
    result, theirs = read_peer(exchange, system)
    runs, seconds = [], []
    for number, overrides in enumerate(comparison.trials[: theirs.trials]):
        folder = exchange.folder / system / "ours" / f"trial-{number}"
        run, took = fit_ours(interactions, exchange, record, system, overrides, folder, refit=refit)
        runs.append(run)
        seconds.append(took)
    validation = [our_mrr(run, exchange.validation) for run in runs]
    best = best_trial(validation)
    evaluation_seconds = time_ours(runs[best], exchange.test)
    peer_seconds = time_peer(exchange, comparison, theirs.trial)
    ours = Outcome(
        best,
        len(runs),
        comparison.trials[best],
        validation[best],
        our_mrr(runs[best], exchange.test),
        seconds[best],
        evaluation_seconds,
        None if comparison.own_way is None else time_ours(runs[best], exchange.test, comparison.own_way),
    )
    if peer_seconds is not None:
        theirs = replace(
            theirs,
            evaluation_seconds=peer_seconds["scoring_seconds"],
            own_way_seconds=peer_seconds["own_way_seconds"],
        )
    title = find_system(system, PRESET).title
    return Row(
        title,
        comparison.peer,
        result["version"],
        ours,
        theirs,
        comparison.own_way,
        peer_seconds is not None,
    )


HEADER = """# Baselines beside public implementations

This page compares each of our baselines with a well-known public implementation of the same system. Both
are trained on the same rows of the same training users and rank the same 101 candidates of the same new
users. The bars: our MRR on the test users is at least {accuracy:g} × the peer's, with the best of an equal
number of trials on each side, and our evaluation of the test users is at least {speed:g} × as fast.
{verdict}

Regenerate with `make peers` (`SPORTS=path` names data that the repository does not hold). Cells show
ours / peer.
"""

TABLE = """
| system | peer | trials | MRR, validation | MRR, test | ratio | ≥ {accuracy:g} | training s | evaluation s \
| faster | ≥ {speed:g} × | its own evaluation s, faster |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""

METHOD = """
## How it was measured

- **Data.** The cold-start split of the protocol at K = 3. A peer gets the rows of the training users and
  the first three items of the new users, and no other data. Users and items are numbers.
- **Trials.** A trial is one setting of a small table, which is the same for every data set (`settings` in
  the scripts of the peers, `trials` in `benches/peers/compare.py`). In a trial, both sides rank the
  validation users at intervals, keep the best weights, and stop when the validation MRR no longer improves.
  Each side shows the trial with the best validation MRR. A peer whose last allowed epoch was the best might
  have improved further; the settings above show the epochs.
- **Ranks.** The same kernel ranks the peers' scores and ours. Ties count against the target.
- **New users.** RecTools recommends to users outside its training data by reading their histories. We call
  the parts of its `recommend`: `encode_sessions` on histories padded to its length, then inner products.
  The scores are those of `recommend`, which takes no candidates for each user. RecBole evaluates users of
  its data set only; we run its network on the histories, unpadded. implicit has no BPR for new users
  (`recalculate_user` is not supported): we fold them in by the same criterion in numpy, with implicit's
  item vectors fixed. Its negatives are sampled, because implicit's vectors rank worse against the mean
  item, which ours uses.
- **Training seconds** are those of the best trial, validations included, on one thread.
- **Evaluation seconds.** Ours: encode the histories of the test users, rank their candidates, average. The
  peer's: compute only the scores of the candidates as an array, from data in memory, with each user encoded
  once. This is the fastest use of the peer's network, and the bar applies to it. Each side uses one thread;
  the time is the least of {rounds} rounds, and the peer runs right after ours. For BPR, both figures are
  those of fold-ins that we wrote, and the fold-in takes nearly all of the peer's time: against the mean
  item it would be as fast as ours. RecTools pads histories to its length, which the settings reduce from
  100, its default, to 10. This is ten times less work for it.
- **Its own evaluation** is the one that a user of the peer would run, once, compared with ours of the same
  task. RecBole, with 100 negatives, predicts each pair of a user and an item and reads the history for
  each. RecTools recommends 10 of all items (`recommend`) and evaluates the lists (`calc_metrics`); ours
  ranks the whole catalogue.
"""

FOOTNOTE = "\n¹ The peer was timed when it was trained; its environment no longer exists.\n"


def describe_machine() -> str:
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    load = f"load average {os.getloadavg()[0]:.1f} when the page was written"
    return f"{os.cpu_count()} cores, {model}, {platform.system()}, {versions}; {load}"


def make_page(sections: Sequence[Section], machine: str) -> str:
    """Write the page, the missed bars first."""
    missed = [
        f"{bar} on {section.name}" for section in sections for row in section.rows for bar in row.missed
    ]
    verdict = f"**Missed: {'; '.join(missed)}.**" if missed else "All of them hold."
    bars = {"accuracy": ACCURACY_BAR, "speed": SPEED_BAR}
    parts = [HEADER.format(verdict=verdict, **bars)]
    for section in sections:
        record = section.record
        parts.append(
            f"\n## {section.name}\n\n{record['num_train_users']:,} training users with "
            f"{record['num_train_rows']:,} rows, {record['num_items']:,} items, "
            f"{section.num_validation_users:,} validation and {section.num_test_users:,} test users; "
            f"seed {record['seed']}.\n"
        )
        parts.append(TABLE.format(**bars) + "\n".join(row.markdown() for row in section.rows) + "\n")
        if not all(row.timed_together for row in section.rows):
            parts.append(FOOTNOTE)
        parts.append("\nSettings of the trials shown; for ours, the differences from `tuned`:\n\n")
        parts.extend(
            f"- {row.title}: ours {write_settings(row.ours.settings)}; "
            f"{row.peer} {write_settings(row.theirs.settings)}\n"
            for row in section.rows
        )
    parts.append(METHOD.format(rounds=TIMING_ROUNDS))
    parts.append(f"\nMachine: {machine}.\n")
    return "".join(parts)


def write_settings(settings: dict[str, Any]) -> str:
    text = ", ".join(f"{name}={value}" for name, value in settings.items())
    return f"`{text}`" if text else "unchanged"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; return 1 if a bar is missed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "exchanges", nargs="+", type=Path, help="exchange folders with the results of the peers"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "baselines.md")
    parser.add_argument("--refit", action="store_true", help="fit ours again")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sections = []
    for folder in given.exchanges:
        exchange = Exchange.read(folder)
        record = json.loads((folder / "exchange.json").read_text(encoding="utf-8"))
        interactions = datasets.load(record["data"], None)
        rows = []
        for comparison in COMPARISONS:
            if not (folder / comparison.system / "result.json").exists():
                print(
                    f"{folder.name}: no scores of {comparison.peer} for {comparison.system}", file=sys.stderr
                )
                continue
            rows.append(compare(interactions, exchange, record, comparison, refit=given.refit))
            print(rows[-1].markdown(), flush=True)
        counts = (len(exchange.test.histories), len(exchange.validation.histories))
        sections.append(Section(folder.name, record, *counts, rows))
    given.page.write_text(make_page(sections, describe_machine()), encoding="utf-8")
    missed = [bar for section in sections for row in section.rows for bar in row.missed]
    for bar in missed:
        print(f"missed: {bar}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
