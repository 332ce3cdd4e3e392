"""Scores of candidates in files and in memory: one row of 1 + n scores per user, the target's first.

An `.npy` file is mapped; an `.npz` file and a wide table are read block by block. None of them needs memory
for all scores. A table of pairs, which may be in any order, needs memory for the scores of all candidates.
"""

from __future__ import annotations

import os
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.readers.regular_files import check_file
from metatl.evaluation.external.score_blocks import Scores, block_height, check_array, matrix_scores
from metatl.evaluation.external.score_tables import frame_table, parquet_table, table_scores
from metatl.evaluation.external.score_text import text_table
from metatl.exceptions import ArgumentTypeError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from metatl.data.candidates import CandidateSets


class PandasFrame(Protocol):
    """The part of the interface of a pandas data frame that is used."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""
        ...

    def to_numpy(self) -> np.ndarray:
        """Give the values."""
        ...

    def __getitem__(self, name: Any, /) -> Any:
        """Give a column."""
        ...


ScoresLike: TypeAlias = Union[str, "os.PathLike[str]", np.ndarray, "torch.Tensor", pl.DataFrame, PandasFrame]
"""A file, an array, a torch tensor, or a polars or pandas frame."""


def open_scores(scores: ScoresLike, sets: CandidateSets | None) -> Scores:
    """Open the scores of candidates.

    Parameters
    ----------
    scores : str, path, ndarray, torch.Tensor, polars.DataFrame or pandas.DataFrame
        A file or the scores, as float32.
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
    with _named(path):
        checked = _checked(_in_file(path, sets), sets)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        with _named(path):
            yield from checked.blocks()

    return Scores(checked.rows, checked.columns, blocks, checked.notes)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the path of the file to errors."""
    try:
        yield
    except DataError as error:
        raise error.in_file(path) from None


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
    if isinstance(scores, pl.DataFrame):
        return table_scores(frame_table(scores), sets)
    module = type(scores).__module__.partition(".")[0]
    if module == "pandas":
        columns = {str(name): scores[name].to_numpy() for name in scores.columns}
        return table_scores(frame_table(pl.DataFrame(columns)), sets)
    if module == "torch":
        scores = scores.detach().cpu().numpy()
    if not isinstance(scores, np.ndarray):
        raise ArgumentTypeError(
            f"scores: found {type(scores).__name__}, expected an array, a tensor, a data frame or a file"
        )
    return matrix_scores(scores)


# --- Files


def _in_file(path: Path, sets: CandidateSets | None) -> Scores:
    check_file(path)
    readers = {".npy": _mapped, ".npz": _unpacked}
    ending = path.suffix.lower()
    if ending in readers:
        return readers[ending](path)
    if ending == ".parquet":
        return table_scores(parquet_table(path), sets)
    if ending in (".csv", ".tsv"):
        return table_scores(text_table(path, "," if ending == ".csv" else "\t", sets), sets)
    raise DataError(
        f"found a name that ends in {ending or 'nothing'!r}, expected .npy, .npz, .parquet, .csv or .tsv"
    )


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version >= (2, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"found a damaged array, or none of numpy's ({reason})") from None
    check_array(dtype, shape, fortran=fortran)
    return shape, fortran, dtype


def _mapped(path: Path) -> Scores:
    with path.open("rb") as file:
        (rows, columns), _, _ = _read_header(file)
        offset = file.tell()
    expected, size = offset + 4 * rows * columns, path.stat().st_size
    if size != expected:
        raise DataError(
            f"found {size:,} bytes, expected {expected:,} for {rows:,} x {columns:,} scores; "
            "write the file again"
        )
    height = block_height(columns)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, rows, height):
            shape = (min(height, rows - start), columns)
            # Each block has its own mapping, so that blocks that were read do not stay in memory.
            yield start, np.memmap(path, np.float32, "r", offset + 4 * start * columns, shape)

    return Scores(rows, columns, blocks)


def _unpacked(path: Path) -> Scores:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            name = names[0] if len(names) == 1 else "scores.npy"
            if name not in names:
                raise DataError(
                    f"found the arrays {quoted(names)}, expected one, or one that is called 'scores'"
                )
            with archive.open(name) as member:
                (rows, columns), _, _ = _read_header(member)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"found a damaged archive ({error})") from None
    height = block_height(columns)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(name) as member:
                _read_header(member)
                for start in range(0, rows, height):
                    count = min(height, rows - start) * columns
                    content = member.read(4 * count)
                    if len(content) < 4 * count:
                        raise DataError("found fewer scores than its header says")
                    yield start, np.frombuffer(content, np.float32).reshape(-1, columns)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataError(f"found a damaged archive ({error})") from None

    return Scores(rows, columns, blocks)
