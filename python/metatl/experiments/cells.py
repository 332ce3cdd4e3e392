"""A cell of an experiment: one row of a table on one data set, for one K and one seed.

A cell is fitted and evaluated once. Its directory holds::

    run/            the run directory of the fit; an unfinished one is continued
    results.json    the evaluation, as `metatl-eval --json` writes it
    ranks.parquet   every test user's rank, sampled and full, for paired tests
    cell.json       identity and seconds of the cell; it is written last, so the cell is finished if it exists
    error.txt       the traceback of the last attempt, if it failed or was stopped

The name of the directory ends in a digest of all that the figures depend on (settings, data, split, version
of metatl, revision of the system), so that figures of other settings are never used for the cell.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import polars as pl

from metatl.common.files import write_json, write_parquet
from metatl.evaluation.report.results import Results, write_results
from metatl.exceptions import RunError
from metatl.models import SYSTEMS, find_system
from metatl.models.item_start.spectral import CROSS_FITTING_REVISION
from metatl.runs.run_directory import SplitSettings
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
    source : DataSource
        The data set.
    fingerprint : str
        Fingerprint of its interactions.
    row : Row
        The system and its settings.
    k, seed : int
        K; seed of weights, tasks and candidates.
    config : dict of str to Any
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
        """A description of the cell for progress and errors."""
        return f"{self.source.name} {self.row.title} K = {self.k} seed {self.seed}"

    @property
    def split(self) -> SplitSettings:
        """How its data are split."""
        return SplitSettings(k=self.k, cutoff=self.source.cutoff)

    def identity(self) -> dict[str, Any]:
        """Give all that the figures depend on; the path and the name of the data are not part of it."""
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
    """The result of a finished cell.

    Attributes
    ----------
    results : Results
        Its evaluation.
    ranks : polars.DataFrame
        ``user_id``, ``ranking``, ``rank``, ``greater``, ``equal``: a row per test user and ranking.
    fit_seconds : float or None
        Wall-clock seconds of the fit; None if the fit was interrupted and continued.
    processor_seconds : float or None
        Processor seconds of the fit, user and system, of all threads; they do not depend on other programs on
        the machine. None if the fit was interrupted and continued.
    """

    results: Results
    ranks: pl.DataFrame
    fit_seconds: float | None
    processor_seconds: float | None


def make_cell(source: DataSource, fingerprint: str, row: Row, *, k: int, seed: int) -> Cell:
    """Make a cell and resolve its config.

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
    """Read the result of a finished cell.

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
        # The digest in the name is short, so the record is compared as well.
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
    """Fit and evaluate a cell that is not finished.

    Parameters
    ----------
    cell : Cell
        The cell.
    out : Path
        Directory of the experiment.
    threads : int
        Threads of torch and of the kernels.
    device : str
        `auto`, `cpu` or `cuda`.
    on_progress : callable, optional
        Called after every training step.

    Raises
    ------
    MetatlError
        If the cell cannot be fitted or evaluated.
    TrainingStopped
        After Ctrl-C, SIGTERM or SIGHUP during training, once a checkpoint is saved.
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
    """Lock a folder against other processes; the system releases the lock when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
