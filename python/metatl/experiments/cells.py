"""One cell of an experiment: a row of a table on one data set, for one K and one seed.

A cell is fitted and evaluated once. Its directory holds::

    run/            the run directory of the fit; a half-written one is continued
    results.json    the evaluation, as `metatl-eval --out` writes it
    ranks.parquet   every test user's rank, sampled and full, for paired tests
    cell.json       what was asked for, and seconds; the last file: its presence says that all is done
    error.txt       the traceback of the last attempt, if it failed or was stopped

The directory's name ends in a digest of all that the figures depend on (settings, data, split, version of
metatl, revision of the system), so that figures of other settings are never taken for these.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import polars as pl

from metatl.common.files import write_parquet
from metatl.evaluation.report.results import Results, write_results
from metatl.exceptions import RunError
from metatl.models import SYSTEMS, find_system
from metatl.models.item_start.spectral import CROSS_FITTING_REVISION
from metatl.runs.run_directory import SplitSettings, write_json
from metatl.training.fit import configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from metatl.experiments.data_sources import DataSource
    from metatl.experiments.table_rows import Row
    from metatl.training.outer_loop import Progress

FORMAT_VERSION = 2
_DIGEST_LETTERS = 12


@dataclass(frozen=True, eq=False)
class Cell:
    """One fit and one evaluation.

    Attributes
    ----------
    source
        The data set.
    fingerprint
        Fingerprint of its interactions.
    row
        The system and its settings.
    k, seed
        K; seed of weights, tasks and candidates.
    config
        The system's whole config, as JSON holds it.
    """

    source: DataSource
    fingerprint: str
    row: Row
    k: int
    seed: int
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{self.source.name} {self.row.title} K = {self.k} seed {self.seed}"

    @property
    def split(self) -> SplitSettings:
        """How its data are split."""
        return SplitSettings(k=self.k, cutoff=self.source.cutoff)

    def identity(self) -> dict[str, Any]:
        """Give all that the figures depend on; where the data lie and their name in tables are not in it."""
        identity = {
            "format_version": FORMAT_VERSION,
            "metatl_version": metadata.version("metatl"),
            "dataset_fingerprint": self.fingerprint,
            "model": self.row.model,
            "revision": SYSTEMS[self.row.model].revision,
            "preset": self.row.preset,
            "config": self.config,
            "seed": self.seed,
            "split": self.split.model_dump(mode="json"),
        }
        if self.config.get("cross_fit_folds"):
            identity["cross_fitting_revision"] = CROSS_FITTING_REVISION
        return identity

    def path(self, out: Path) -> Path:
        """Directory of the cell below the directory of the experiment."""
        identity = json.dumps(self.identity(), sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:_DIGEST_LETTERS]
        name = f"{self.row.model}-{self.row.preset}-seed{self.seed}-{digest}"
        return out / "cells" / self.source.name / f"k{self.k}" / name


@dataclass(frozen=True, eq=False)
class CellResult:
    """What a finished cell left.

    Attributes
    ----------
    results
        Its evaluation.
    ranks
        ``user_id``, ``ranking``, ``rank``, ``greater``, ``equal``: a row per test user and ranking.
    fit_seconds
        Wall-clock seconds of the fit; None where it was interrupted and continued, for then no one clock
        saw all of it.
    processor_seconds
        Processor seconds that it took, user and system, of all its threads; they do not depend on who else
        uses the machine. None likewise.
    """

    results: Results
    ranks: pl.DataFrame
    fit_seconds: float | None
    processor_seconds: float | None


def make_cell(source: DataSource, fingerprint: str, row: Row, *, k: int, seed: int) -> Cell:
    """Name a cell, with its config resolved.

    Raises
    ------
    ConfigError
        If the row's system has no such preset, or its settings are not valid.
    """
    config = configure(find_system(row.model, row.preset), row.preset, row.config, k=k)
    return Cell(source, fingerprint, row, k, seed, config.model_dump(mode="json"))


def is_finished(cell: Cell, out: Path) -> bool:
    """Whether the cell has been fitted and evaluated."""
    return (cell.path(out) / "cell.json").exists()


def read_cell(cell: Cell, out: Path) -> CellResult:
    """Read what a finished cell left.

    Raises
    ------
    RunError
        If its files are damaged or not those of the cell.
    """
    path = cell.path(out)
    try:
        record = json.loads((path / "cell.json").read_text(encoding="utf-8"))
        results = Results.model_validate_json((path / "results.json").read_bytes())
        ranks = pl.read_parquet(path / "ranks.parquet")
        # The digest in the name is short; the record is the proof.
        if record["identity"] != cell.identity():
            raise RunError(f"{path}: found a cell of other settings than its name says; delete it")
        return CellResult(results, ranks, record["fit_seconds"], record["processor_seconds"])
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path}: cannot be read ({reason}); delete it, and it is made again") from None


def run_cell(
    cell: Cell,
    out: Path,
    *,
    threads: int,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Fit and evaluate a cell, unless that was done before.

    Parameters
    ----------
    cell
        What to do.
    out
        Directory of the experiment.
    threads
        Threads of torch and of the kernels.
    device
        `auto`, `cpu` or `cuda`.
    on_progress
        Called after every training step.

    Raises
    ------
    MetatlError
        If the cell cannot be fitted or evaluated.
    TrainingStopped
        After Ctrl-C or SIGTERM during training, once a checkpoint is saved.
    """
    import torch

    from metatl.evaluation.evaluate_runs import evaluate
    from metatl.training.fit import fit

    path = cell.path(out)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if is_finished(cell, out):
            return
        torch.set_num_threads(threads)
        run_directory = path / "run"
        was_started = (run_directory / "run.json").exists()
        if run_directory.exists() and not was_started:
            # Killed before the run had said what it is: `fit` would take it for somebody else's directory.
            shutil.rmtree(run_directory)
        begin, begin_processor = time.perf_counter(), time.process_time()
        run = fit(
            cell.source.data,
            model=cell.row.model,
            preset=cell.row.preset,
            config=cell.row.config,
            seed=cell.seed,
            split=cell.split,
            out=run_directory,
            device=device,
            resume=True,
            on_progress=on_progress,
        )
        seconds = {
            "fit_seconds": None if was_started else time.perf_counter() - begin,
            "processor_seconds": None if was_started else time.process_time() - begin_processor,
        }
        evaluation = evaluate(run, seed=cell.seed, num_threads=threads)
        if evaluation.results.dataset.fingerprint != cell.fingerprint:
            raise RunError(f"{cell.source.data}: the data changed while the experiment ran; run it again")
        columns = ["user_id", "ranking", "rank", "greater", "equal"]
        write_parquet(path / "ranks.parquet", evaluation.per_user.select(columns))
        write_results(path / "results.json", evaluation.results)
        (path / "error.txt").unlink(missing_ok=True)
        write_json(path / "cell.json", {"identity": cell.identity(), **seconds})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a folder; the system lets go of the lock when a process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
