"""Finished cells in a few small files that the repository holds.

A file holds the cells of one data set, K and seed, which paired tests compare; a new seed is a new file.
Each row is a cell::

    row                the row of the table; a cell replaces an older one of its row
    identity           JSON, all that its figures depend on (:meth:`metatl.experiments.cells.Cell.identity`)
    report             JSON, its evaluation, without what the counts give (corrected metrics, ties)
                       and without paths
    fit_seconds, processor_seconds
    sampled_greater, sampled_equal, full_greater, full_equal
                       for each test user, in the order of their ids: the number of items with a higher score
                       than the target, and with the same score. Little-endian unsigned integers of 1, 2 or
                       4 bytes; the largest number of a field decides

A cell is found by its identity only, so that figures of other settings, data or versions are never used.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import polars as pl

from metatl.common.files import write_parquet
from metatl.data.readers.parquet_files import read_parquet
from metatl.evaluation.report.results import Results
from metatl.exceptions import DataError, RunError
from metatl.experiments.cells import CellResult, locked
from metatl.metrics.names import RANKINGS
from metatl.metrics.rank_metrics import ranks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from metatl.experiments.cells import Cell

_COUNTS = [f"{ranking}_{count}" for ranking in RANKINGS for count in ("greater", "equal")]
_SCHEMA = {
    "row": pl.String(),
    "identity": pl.String(),
    "report": pl.String(),
    "fit_seconds": pl.Float64(),
    "processor_seconds": pl.Float64(),
    **dict.fromkeys(_COUNTS, pl.Binary()),
}
_FILE_NAME = re.compile(r"(?P<name>.+)-k\d+-seed\d+\.parquet")


def kept_file(folder: Path, cell: Cell) -> Path:
    """Give the file of a cell."""
    return folder / f"{cell.source.name}-k{cell.k}-seed{cell.seed}.parquet"


def keep(folder: Path, cell: Cell, result: CellResult) -> None:
    """Add a finished cell to its file, in one step.

    Parameters
    ----------
    folder : Path
        Folder of the files; made if it does not exist.
    cell : Cell
        The cell.
    result : CellResult
        Its result.

    Raises
    ------
    RunError
        If the file exists and is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = kept_file(folder, cell)
    record: dict[str, str | float | bytes | None] = {
        "row": cell.row.title,
        "identity": json.dumps(cell.identity(), sort_keys=True),
        "report": _to_keep(result.results).model_dump_json(),
        "fit_seconds": result.fit_seconds,
        "processor_seconds": result.processor_seconds,
    }
    for ranking in RANKINGS:
        users = result.ranks.filter(ranking=ranking).sort("user_id")
        for count in ("greater", "equal"):
            record[f"{ranking}_{count}"] = _pack(users[count].to_numpy())
    with locked(folder):
        others = _read(path).filter(pl.col("row") != cell.row.title)
        added = pl.DataFrame([record], schema=_SCHEMA)
        write_parquet(path, pl.concat([others, added]).sort("row"))


def find_kept(folder: Path, cell: Cell) -> CellResult | None:
    """Find a published cell.

    Returns
    -------
    CellResult or None
        `user_id` holds 0, 1, … in the order of the users' ids. None if no cell has this identity.

    Raises
    ------
    RunError
        If its file is damaged.
    """
    path, identity = kept_file(folder, cell), cell.identity()
    for record in _read(path).iter_rows(named=True):
        with _naming(path):
            if json.loads(record["identity"]) == identity:
                results = Results.model_validate_json(record["report"])
                return CellResult(
                    results, _ranks(record, results), record["fit_seconds"], record["processor_seconds"]
                )
    return None


def kept_fingerprints(folder: Path, *, without: Collection[str] = ()) -> dict[str, str]:
    """Give the data sets of the published cells.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    without : collection of str
        Names to leave out.

    Returns
    -------
    dict of str to str
        Name to fingerprint, sorted by name.

    Raises
    ------
    RunError
        If a file is damaged, or the cells of one data set have different fingerprints.
    """
    fingerprints: dict[str, str] = {}
    for path in sorted(folder.glob("*.parquet")):
        named = _FILE_NAME.fullmatch(path.name)
        if named is None:
            raise RunError(f"{path}: found a file of another name than NAME-kK-seedS.parquet")
        if named["name"] in without:
            continue
        for text in _read(path)["identity"]:
            with _naming(path):
                fingerprint = json.loads(text)["dataset_fingerprint"]
            if fingerprints.setdefault(named["name"], fingerprint) != fingerprint:
                raise RunError(
                    f"{path}: found cells of different data; --data {named['name']}=PATH says which to take"
                )
    return fingerprints


def _pack(counts: NDArray[Any]) -> bytes:
    width = next(width for width in (1, 2, 4) if counts.max(initial=0) < 1 << (8 * width))
    return counts.astype(f"<u{width}").tobytes()


def _unpack(content: bytes, users: int) -> NDArray[np.int64]:
    width, rest = divmod(len(content), users)
    if rest or width not in (1, 2, 4):
        raise DataError(f"found {len(content)} bytes of counts for {users} users")
    return np.frombuffer(content, f"<u{width}").astype(np.int64)


def _ranks(record: dict[str, Any], results: Results) -> pl.DataFrame:
    frames = []
    for ranking in RANKINGS:
        greater, equal = (
            _unpack(record[f"{ranking}_{count}"], results.dataset.test_users)
            for count in ("greater", "equal")
        )
        columns = {
            "user_id": np.arange(len(greater)),
            "ranking": [ranking] * len(greater),
            "rank": ranks(greater, equal, ties=results.protocol.ties),
            "greater": greater,
            "equal": equal,
        }
        frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def _to_keep(results: Results) -> Results:
    return results.model_copy(
        update={
            "metrics": results.metrics.model_copy(update={"corrected": None}),
            "ties": {},
            "dataset": results.dataset.model_copy(update={"source": None}),
            "model": results.model.model_copy(update={"run": None}),
        }
    )


def _read(path: Path) -> pl.DataFrame:
    if not path.exists():
        return pl.DataFrame(schema=_SCHEMA)
    with _naming(path):
        rows = read_parquet(path, list(_SCHEMA)).rows
        if (
            rows.schema != _SCHEMA
            or rows.drop("fit_seconds", "processor_seconds").null_count().sum_horizontal()[0]
        ):
            raise DataError("found other columns than those of kept cells, or empty fields")
        return rows


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn any error of reading a file into one line that names the file."""

    def refuse(reason: str) -> NoReturn:
        line = reason.partition("\n")[0]
        raise RunError(
            f"{path}: cannot be read ({line}); restore it, or delete it, and its cells are made again"
        )

    try:
        yield
    except DataError as error:
        refuse(error.message)
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse(str(error))
