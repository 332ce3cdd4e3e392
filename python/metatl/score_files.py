"""Scores of candidates in files and in memory: one row of 1 + n scores per user, the target's first.

An `.npy` file is mapped, an `.npz` unpacked block by block, so that neither needs the memory of all scores.
Tables (`.csv`, `.tsv`, `.parquet`, data frames) come in two forms. Wide: a column for each candidate, after
a `user_id` if there is one. Long: `user_id`, `item_id` and `score`, one row a pair, in any order.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, Union

import numpy as np
import polars as pl

from metatl.column_errors import listed
from metatl.exceptions import DataError
from metatl.long_scores import fill_long_scores
from metatl.parquet_files import read_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from metatl.candidates import CandidateSets


class PandasFrame(Protocol):
    """What is used of a pandas data frame."""

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

LONG_COLUMNS = ("user_id", "item_id", "score")
BLOCK_BYTES = 32 * 2**20
"""Scores that are read at once."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of B users, to be read block by block.

    Attributes
    ----------
    rows, columns : int
        B, and 1 + n.
    blocks : callable
        Gives (first row, (b, 1 + n) float32) for successive blocks of rows.
    notes : tuple of str
        What a reader should know, such as rows that were not used.
    """

    rows: int
    columns: int
    blocks: Callable[[], Iterator[tuple[int, np.ndarray]]]
    notes: tuple[str, ...] = ()


def open_scores(scores: ScoresLike, sets: CandidateSets | None) -> Scores:
    """Find the scores of candidates in what a caller has.

    Parameters
    ----------
    scores : str, path, ndarray, torch.Tensor, polars.DataFrame or pandas.DataFrame
        A file or the scores; float32 wherever there is a type.
    sets : CandidateSets or None
        The candidates. Without them only rows of scores make sense, and nobody checks what they belong to.

    Returns
    -------
    Scores
        In the order of the candidates' rows.

    Raises
    ------
    DataError
        If the file cannot be read, or its type, its shape, its columns, its users or their order are not
        those of the candidates.
    """
    if not isinstance(scores, (str, os.PathLike)):
        return _checked(_in_memory(scores, sets), sets)
    path = Path(scores)
    try:
        return _checked(_in_file(path, sets), sets)
    except DataError as error:
        raise DataError(
            error.message, file=str(path), line=error.line, row=error.row, column=error.column
        ) from None


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
        return _table(scores, sets)
    module = type(scores).__module__.partition(".")[0]
    if module == "pandas":
        columns = {str(name): scores[name].to_numpy() for name in scores.columns}
        return _table(pl.DataFrame(columns), sets)
    if module == "torch":
        scores = scores.detach().cpu().numpy()
    if not isinstance(scores, np.ndarray):
        raise DataError(
            f"scores: found {type(scores).__name__}, expected an array, a tensor, a data frame or a file"
        )
    return _matrix(scores)


def _matrix(matrix: np.ndarray) -> Scores:
    _check_array(matrix.dtype, matrix.shape, fortran=False)
    rows, columns = matrix.shape
    height = _block_height(columns)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, rows, height):
            yield start, np.ascontiguousarray(matrix[start : start + height])

    return Scores(rows, columns, blocks)


def _check_array(dtype: np.dtype[Any], shape: tuple[int, ...], *, fortran: bool) -> None:
    if dtype != np.float32:
        raise DataError(
            f"scores: found {dtype}, expected float32; convert with .astype(np.float32), and know that "
            "scores closer than its precision become ties"
        )
    if len(shape) != 2:  # noqa: PLR2004
        raise DataError(f"scores: found the shape {shape}, expected two dimensions: users and candidates")
    if fortran and min(shape) > 1:
        raise DataError(
            "scores: found columns after each other (Fortran order), expected rows; save "
            "np.ascontiguousarray(scores)"
        )


def _block_height(columns: int) -> int:
    return max(1, BLOCK_BYTES // (4 * max(columns, 1)))


# --- Files


def _in_file(path: Path, sets: CandidateSets | None) -> Scores:
    if not path.is_file():
        raise DataError("found no such file" if not path.exists() else "found a folder, expected a file")
    readers = {".npy": _mapped, ".npz": _unpacked}
    ending = path.suffix.lower()
    if ending in readers:
        return readers[ending](path)
    if ending == ".parquet":
        return _table(read_parquet(path).rows, sets)
    if ending in (".csv", ".tsv"):
        return _table(_read_text(path, "," if ending == ".csv" else "\t", sets), sets)
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
    _check_array(dtype, shape, fortran=fortran)
    return shape, fortran, dtype


def _mapped(path: Path) -> Scores:
    with path.open("rb") as file:
        (rows, columns), _, _ = _read_header(file)
        offset = file.tell()
    expected, found = offset + 4 * rows * columns, path.stat().st_size
    if found != expected:
        raise DataError(
            f"found {found:,} bytes, expected {expected:,} for {rows:,} x {columns:,} scores; "
            "write the file again"
        )
    height = _block_height(columns)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, rows, height):
            shape = (min(height, rows - start), columns)
            # A mapping for each block: what has been read does not stay with the process.
            yield start, np.memmap(path, np.float32, "r", offset + 4 * start * columns, shape)

    return Scores(rows, columns, blocks)


def _unpacked(path: Path) -> Scores:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            name = names[0] if len(names) == 1 else "scores.npy"
            if name not in names:
                raise DataError(
                    f"found the arrays {listed(names)}, expected one, or one that is called 'scores'"
                )
            with archive.open(name) as member:
                (rows, columns), _, _ = _read_header(member)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"found a damaged archive ({error})") from None
    height = _block_height(columns)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(name) as member:
                _read_header(member)
                for start in range(0, rows, height):
                    count = min(height, rows - start) * columns
                    content = member.read(4 * count)
                    if len(content) < 4 * count:
                        raise DataError("found fewer scores than its header says", file=str(path))
                    yield start, np.frombuffer(content, np.float32).reshape(-1, columns)
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataError(f"found a damaged archive ({error})", file=str(path)) from None

    return Scores(rows, columns, blocks)


def _read_text(path: Path, separator: str, sets: CandidateSets | None) -> pl.DataFrame:
    """Read a table of text: ids as the candidates have them, scores as float32."""
    try:
        table = pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except pl.exceptions.NoDataError:
        raise DataError("found an empty file, expected a header and rows") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"found a damaged table ({reason})") from None
    columns = []
    for name in table.columns:
        if name in ("user_id", "item_id"):
            columns.append(_read_ids(table[name], sets))
        else:
            columns.append(_read_numbers(table[name]))
    return pl.DataFrame(columns)


def _read_ids(column: pl.Series, sets: CandidateSets | None) -> pl.Series:
    if sets is None:
        return column
    dtype: pl.DataType = (sets.user_ids if column.name == "user_id" else sets.item_ids).dtype
    return column if dtype == pl.String else _cast(column, dtype, "an integer id")


def _read_numbers(column: pl.Series) -> pl.Series:
    return _cast(column.str.strip_chars(), pl.Float32(), "a number")


def _cast(column: pl.Series, dtype: pl.DataType, expected: str) -> pl.Series:
    numbers: pl.Series = column.cast(dtype, strict=False)
    wrong = numbers.is_null()
    if wrong.any():
        row = int(wrong.arg_true()[0])
        found = "nothing" if column[row] is None else repr(column[row])
        raise DataError(f"found {found}, expected {expected}", line=row + 2, column=column.name)
    return numbers


# --- Tables


def _table(table: pl.DataFrame, sets: CandidateSets | None) -> Scores:
    if set(LONG_COLUMNS) <= set(table.columns):
        if sets is None:
            raise DataError(
                "scores: found pairs of users and items, which mean nothing without the candidates; give them"
            )
        extra = [name for name in table.columns if name not in LONG_COLUMNS]
        if extra:
            raise DataError(f"scores: found the extra column {extra[0]!r}, expected {listed(LONG_COLUMNS)}")
        _check_types(table.select("score"))
        matrix, notes = fill_long_scores(table, sets)
        found = _matrix(matrix)
        return Scores(found.rows, found.columns, found.blocks, notes)
    if "item_id" in table.columns:
        missing = next(name for name in LONG_COLUMNS if name not in table.columns)
        raise DataError(f"scores: found no column {missing!r} beside {listed(table.columns)}")
    if "user_id" in table.columns:
        if sets is not None:
            _check_users(table["user_id"], sets.user_ids)
        table = table.drop("user_id")
    if sets is not None and table.width != sets.candidates.shape[1]:
        raise DataError(
            f"scores: found {table.width} columns of scores, expected {sets.candidates.shape[1]}: the "
            f"target's, then those of {sets.n} negatives"
        )
    _check_types(table)
    return _matrix(np.ascontiguousarray(table.to_numpy()) if table.width else np.empty((0, 0), np.float32))


def _check_types(table: pl.DataFrame) -> None:
    for name, dtype in table.schema.items():
        if dtype != pl.Float32:
            raise DataError(f"scores: found the type {dtype}, expected Float32", column=name)
        if table[name].null_count():
            raise DataError(
                f"scores: found {table[name].null_count()} missing values, expected numbers", column=name
            )


def _check_users(found: pl.Series, expected: pl.Series) -> None:
    if found.dtype != expected.dtype:
        raise DataError(f"found user ids of type {found.dtype}, expected {expected.dtype}", column="user_id")
    known = found.is_in(expected.implode())
    if not known.all():
        row = int((~known).arg_true()[0])
        raise DataError(
            f"found the user {found[row]!r}, who is not among the candidates' users",
            row=row + 1,
            column="user_id",
        )
    missing = expected.filter(~expected.is_in(found.implode()))
    if len(missing):
        raise DataError(
            f"found no scores of {len(missing)} of the {len(expected)} users, such as {missing[0]!r}",
            column="user_id",
        )
    if len(found) != len(expected):
        raise DataError(f"found {len(found)} rows, expected one for each of {len(expected)} users")
    differs = (found != expected).arg_true()
    if len(differs):
        row = int(differs[0])
        raise DataError(
            f"found the user {found[row]!r}, expected {expected[row]!r}: rows in the order of the "
            "candidates' rows",
            row=row + 1,
            column="user_id",
        )
