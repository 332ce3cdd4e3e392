"""Run a grid of rows × data sets × K × seeds, and gather tidy results.

Every cell is fitted and evaluated once (:mod:`metatl.experiments.cells`); a second call continues where the
first one stopped. A seed sets the weights, the tasks and the candidates; the split is the same for all seeds.
All systems of a seed rank the same candidates.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from metatl import _metatl, datasets
from metatl.common.files import write_parquet
from metatl.exceptions import RunError
from metatl.experiments.cells import is_finished, make_cell, read_cell
from metatl.experiments.outcome import TIDY_SCHEMA, Outcome
from metatl.experiments.progress import grid_progress
from metatl.experiments.published_cells import find_kept, keep
from metatl.experiments.workers import Failed, Finished, work
from metatl.metrics.names import DEFAULT_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from metatl.experiments.cells import Cell, CellResult
    from metatl.experiments.data_sources import DataSource
    from metatl.experiments.table_rows import Row


def plan(
    sources: Sequence[DataSource],
    rows: Sequence[Row],
    *,
    ks: Sequence[int],
    seeds: int,
    configs: Mapping[tuple[str, str], Mapping[str, object]] | None = None,
    fingerprints: Mapping[str, str] | None = None,
) -> list[Cell]:
    """List the cells of a grid.

    The cells are ordered by K, data set, seed and row, because paired tests need all rows of a seed.

    Parameters
    ----------
    sources : sequence of DataSource
        The data sets. Each is read once for its fingerprint, unless `fingerprints` has it.
    rows : sequence of Row
        The rows of the tables.
    ks : sequence of int
        Values of K.
    seeds : int
        Number of seeds.
    configs : mapping of (str, str) to mapping of str to object, optional
        (system, fingerprint of the data) to fields that replace those of the preset `tuned`, as
        `metatl tune` finds them. The fields of a row take precedence.
    fingerprints : mapping of str to str, optional
        Names of data sets to the fingerprints of their interactions, where the data are not available.

    Raises
    ------
    ConfigError
        If a row's settings are not valid.
    DataError
        If data cannot be read.
    """
    known = fingerprints or {}
    of_sources = [known.get(source.name) or datasets.load(source.data).fingerprint for source in sources]
    return [
        make_cell(source, fingerprint, _with_config(row, fingerprint, configs or {}), k=k, seed=seed)
        for k in ks
        for source, fingerprint in zip(sources, of_sources, strict=True)
        for seed in range(seeds)
        for row in rows
    ]


def _with_config(row: Row, fingerprint: str, configs: Mapping[tuple[str, str], Mapping[str, object]]) -> Row:
    found = configs.get((row.model, fingerprint))
    if found is None or row.preset != "tuned":
        return row
    return replace(row, config={**found, **row.config})


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    console: Console,
    jobs: int = 1,
    device: str = "cpu",
    name: str = "results",
    kept: Path | None = None,
    keep_new: bool = False,
) -> Outcome:
    """Run the cells that are not finished, and gather the figures of all.

    Parameters
    ----------
    cells : sequence of Cell
        The cells; see :func:`plan`.
    out : Path
        Directory of the experiment. Cells go below `cells/`; grids that share it share their cells.
    console : Console
        Where progress is shown.
    jobs : int
        Number of cells that run at a time; they share the processors.
    device : str
        `auto`, `cpu` or `cuda`.
    name : str
        The figures go to `name.parquet`.
    kept : Path, optional
        Folder of published cells (:mod:`metatl.experiments.published_cells`), which are not fitted again.
    keep_new : bool
        Whether finished cells are added to that folder; a cell replaces an older one of its row.

    Returns
    -------
    Outcome
        If cells failed: the figures of the other cells, and the reasons.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, when the running trainings have saved their checkpoints.
    """
    out.mkdir(parents=True, exist_ok=True)
    unfinished = []
    for cell in cells:
        if kept is not None and find_kept(kept, cell) is not None:
            continue
        if not is_finished(cell, out):
            unfinished.append(cell)
        elif kept is not None and keep_new:
            keep(kept, cell, read_cell(cell, out))
    failures = []
    if unfinished:
        jobs = min(jobs, len(unfinished))
        threads = max(1, num_processors() // jobs)
        with (
            grid_progress(console, cells, unfinished, jobs) as show,
            closing(work(unfinished, out, jobs=jobs, threads=threads, device=device)) as events,
        ):
            for event in events:
                if isinstance(event, Failed):
                    failures.append(f"{event.cell.name}: {event.reason}")
                mrr = None
                if isinstance(event, Finished):
                    result = read_cell(event.cell, out)
                    mrr = _mrr(result)
                    if kept is not None and keep_new:
                        keep(kept, event.cell, result)
                show(event, mrr)
    outcome = gather(cells, out, failures, kept=kept)
    write_parquet(out / f"{name}.parquet", outcome.results)
    return outcome


def gather(
    cells: Sequence[Cell], out: Path, failures: Sequence[str] = (), *, kept: Path | None = None
) -> Outcome:
    """Read the figures of the finished cells, below `out` or published.

    Raises
    ------
    RunError
        If a cell is damaged, or two systems of a seed ranked different candidates.
    """
    records: list[dict[str, object]] = []
    ranks = {}
    candidates: dict[tuple[str, int, int], str] = {}
    for cell in cells:
        result = read_cell(cell, out) if is_finished(cell, out) else None
        if result is None and kept is not None:
            result = find_kept(kept, cell)
        if result is None:
            continue
        records.extend(_tidy(cell, result))
        ranks[cell.source.name, cell.row.title, cell.k, cell.seed] = result.ranks
        sha256 = _sha256(result)
        if candidates.setdefault((cell.source.name, cell.k, cell.seed), sha256) != sha256:
            raise RunError(f"{cell.path(out)}: ranked different candidates than the systems before it")
    return Outcome(pl.DataFrame(records, schema=TIDY_SCHEMA), ranks, list(failures))


def num_processors() -> int:
    """Count the threads that this process may use, as the kernels do; the quota of a container counts."""
    return _metatl.available_threads()


def _mrr(result: CellResult) -> float:
    sampled = result.results.metrics.sampled
    return float("nan") if sampled is None else sampled["MRR"].value


def _sha256(result: CellResult) -> str:
    candidates = result.results.candidates
    return "" if candidates is None else candidates.sha256


def _tidy(cell: Cell, result: CellResult) -> list[dict[str, object]]:
    results = result.results
    shared = {
        "dataset": cell.source.name,
        "row": cell.row.title,
        "system": cell.row.model,
        "preset": cell.row.preset,
        "config": json.dumps(dict(cell.row.config), sort_keys=True),
        "k": cell.k,
        "seed": cell.seed,
        "test_users": results.dataset.test_users,
        "fit_seconds": result.fit_seconds,
        "processor_seconds": result.processor_seconds,
        "evaluation_seconds": sum(results.timings.get(stage, 0.0) for stage in ("encode", "rank")),
        "candidates_sha256": _sha256(result),
        "dataset_fingerprint": results.dataset.fingerprint,
        "metatl_version": results.metatl_version,
    }
    rankings = {"sampled": results.metrics.sampled or {}, "full": results.metrics.full or {}}
    return [
        {**shared, "ranking": ranking, "metric": metric, **estimate.model_dump()}
        for ranking, metrics in rankings.items()
        for metric, estimate in metrics.items()
        if metric in DEFAULT_METRICS
    ]
