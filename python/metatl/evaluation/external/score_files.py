"""Scores of candidates in files and in memory: one row of 1 + n scores per user, the target's first.

An `.npy` file is mapped; an `.npz` file and a wide table are read block by block. None of them needs memory
for all scores. A table of pairs, which may be in any order, needs memory for the scores of all candidates.
"""

from __future__ import annotations

import os
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from metatl.common.column_errors import quoted
from metatl.data.frames import FrameLike, as_frame, is_frame
from metatl.data.readers.opened_files import errors_in
from metatl.data.readers.regular_files import check_file
from metatl.evaluation.external.arrays import as_array
from metatl.evaluation.external.score_blocks import (
    Scores,
    block_height,
    check_array,
    in_ranked_type,
    matrix_scores,
)
from metatl.evaluation.external.score_tables import frame_table, parquet_table, table_scores
from metatl.evaluation.external.score_text import text_table
from metatl.exceptions import DataError, MetatlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from metatl.data.candidates import CandidateSets


ScoresLike: TypeAlias = Union[str, "os.PathLike[str]", np.ndarray, "torch.Tensor", FrameLike]
"""A file, an array, a torch tensor, or a table of any library."""


def open_scores(scores: ScoresLike, sets: CandidateSets | None) -> Scores:
    """Open the scores of candidates.

    Parameters
    ----------
    scores : str, path, ndarray, torch.Tensor or table
        A file or the scores: floats or integers, which are ranked in their own precision.
    sets : CandidateSets or None
        The candidates. Without them the scores must be rows, and users and items cannot be checked.

    Returns
    -------
    Scores
        In the order of the candidates' rows.

    Raises
    ------
    DataError
        If the file cannot be read, or its type, shape, columns, users or order of users do not fit the
        candidates.
    """
    if not isinstance(scores, (str, os.PathLike)):
        return _checked(_in_memory(scores, sets), sets)
    path = Path(scores)
    with errors_in(path):
        checked = _checked(_in_file(path, sets), sets)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        with errors_in(path):
            yield from checked.blocks()

    return Scores(checked.rows, checked.columns, blocks, checked.notes)


def _checked(scores: Scores, sets: CandidateSets | None) -> Scores:
    if scores.rows == 0:
        raise DataError("scores: found no rows, expected one per user")
    if sets is None:
        if scores.columns < 2:  # noqa: PLR2004
            raise DataError(
                f"scores: found {scores.columns} columns, expected the target's and at least one negative's"
            )
    elif (scores.rows, scores.columns) != sets.candidates.shape:
        users, width = sets.candidates.shape
        raise DataError(
            f"scores: found the shape ({scores.rows}, {scores.columns}), expected ({users}, {width}): a row "
            "for each user of the candidates, the target's score first"
        )
    return scores


# --- In memory


def _in_memory(scores: Any, sets: CandidateSets | None) -> Scores:
    if is_frame(scores):
        return table_scores(frame_table(as_frame("scores", scores)), sets)
    return matrix_scores(as_array("scores", scores))


# --- Files


def _in_file(path: Path, sets: CandidateSets | None) -> Scores:
    check_file(path)
    readers = {".npy": _mapped, ".npz": _unpacked}
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.suffix == ".gz" and ending not in (".csv", ".tsv"):
        raise DataError(f"found a gzipped {ending or 'file'}, expected .csv.gz or .tsv.gz; unpack it")
    if ending in readers:
        return readers[ending](path)
    if ending == ".parquet":
        return table_scores(parquet_table(path), sets)
    if ending in (".csv", ".tsv"):
        return table_scores(text_table(path, "," if ending == ".csv" else "\t"), sets)
    raise DataError(
        f"found a name that ends in {ending or 'nothing'!r}, expected .npy, .npz, .parquet, .csv or .tsv"
    )


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
            (3, 0): np.lib.format.read_array_header_2_0,
        }
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # noqa: BLE001 (NumPy evaluates the header as Python, which raises many types)
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"found a damaged array, or none of numpy's ({reason})") from None
    if not all(isinstance(size, int) and 0 <= size < 2**62 for size in shape):
        raise DataError(f"found a damaged array, or none of numpy's (its shape is {shape!r:.60})")
    check_array(dtype, shape, fortran=fortran)
    return shape, fortran, dtype


def _mapped(path: Path) -> Scores:
    with path.open("rb") as file:
        (rows, columns), _, dtype = _read_header(file)
        offset = file.tell()
    expected, size = offset + dtype.itemsize * rows * columns, path.stat().st_size
    if size != expected:
        raise DataError(
            f"found {size:,} bytes, expected {expected:,} for {rows:,} x {columns:,} scores; "
            "write the file again"
        )
    height = block_height(columns, dtype.itemsize)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, rows, height):
            shape = (min(height, rows - start), columns)
            begin = offset + dtype.itemsize * start * columns
            # Each block has its own mapping, so that blocks that were read do not stay in memory.
            yield start, in_ranked_type(np.memmap(path, dtype, "r", begin, shape))

    return Scores(rows, columns, blocks)


def _unpacked(path: Path) -> Scores:
    with _archive_errors(), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        name = names[0] if len(names) == 1 else "scores.npy"
        if name not in names:
            raise DataError(f"found the arrays {quoted(names)}, expected one, or one that is called 'scores'")
        with archive.open(name) as member:
            (rows, columns), _, dtype = _read_header(member)
    height = block_height(columns, dtype.itemsize)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        with _archive_errors(), zipfile.ZipFile(path) as archive, archive.open(name) as member:
            _read_header(member)
            for start in range(0, rows, height):
                size = min(height, rows - start) * columns * dtype.itemsize
                content = member.read(size)
                if len(content) < size:
                    raise DataError("found fewer scores than its header says")
                yield start, in_ranked_type(np.frombuffer(content, dtype).reshape(-1, columns))

    return Scores(rows, columns, blocks)


@contextmanager
def _archive_errors() -> Iterator[None]:
    """Describe whatever a damaged, encrypted or strangely packed archive makes zipfile raise."""
    try:
        yield
    except (MetatlError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (errors of many types)
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"found a damaged archive, or one that cannot be read ({reason})") from None
