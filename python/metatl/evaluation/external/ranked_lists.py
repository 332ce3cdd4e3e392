"""Read ranked lists and the item that each user chose, from TREC files and tables.

A TREC run has lines `user Q0 item rank score tag`, qrels have `user 0 item relevance`; fields are separated
by white space. As in trec_eval, items are ranked by the score, not by the rank in the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

import numpy as np
import polars as pl

from metatl.common.column_errors import quoted
from metatl.common.row_faults import RowFaults
from metatl.data.candidates import CandidateSets, holds_candidates
from metatl.data.frames import FrameLike
from metatl.data.ids import normalise, to_ids
from metatl.data.readers.opened_files import errors_in, open_file
from metatl.data.readers.small_tables import SmallTable, read_small_table
from metatl.data.readers.text_blocks import read_blocks
from metatl.exceptions import DataError, NotANumberError

if TYPE_CHECKING:
    import io

ListsLike: TypeAlias = Union[str, "os.PathLike[str]", FrameLike]

_RUN_FIELDS = ("user_id", "Q0", "item_id", "rank", "score", "tag")
_QRELS_FIELDS = ("user_id", "iteration", "item_id", "relevance")
_TABLES = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson")


class Targets(NamedTuple):
    """The item that each user chose.

    Attributes
    ----------
    rows : polars.DataFrame
        ``user_id`` and ``target`` (Int64 or String each), one row per user, in the order of the source.
    candidates : CandidateSets or None
        The candidates, if the source is a candidate file.
    """

    rows: pl.DataFrame
    candidates: CandidateSets | None


def read_lists(source: ListsLike) -> pl.DataFrame:
    """Read ranked lists.

    Parameters
    ----------
    source : str, path or table
        A TREC run, or a table (in memory, or a file of Parquet, CSV, TSV or JSON lines) with ``user_id``,
        ``item_id`` and ``score`` or ``rank``, or both. Files can be gzipped.

    Returns
    -------
    polars.DataFrame
        ``user_id``, ``item_id`` (Int64 or String each) and ``score`` (Float64 or Int64, higher is better), in
        the order of the source.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, an item is in a list twice, or the order by score and
        the order by rank differ.
    NotANumberError
        If scores are NaN; the message counts them.
    ArgumentTypeError
        If `source` is neither a path nor a table.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _run_table(read_small_table("lists", source))
    with errors_in(source):
        return _run_table(_read_file("lists", Path(source), _RUN_FIELDS))


def read_targets(source: ListsLike) -> Targets:
    """Read the item that each user chose.

    Parameters
    ----------
    source : str, path or table
        TREC qrels with one relevant item per user, a candidate file, or a table with ``user_id`` and
        ``target``, as for :func:`read_lists`.

    Returns
    -------
    Targets
        The users and their targets.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, a relevance is not a number, or a user does not have
        exactly one relevant item.
    ArgumentTypeError
        If `source` is neither a path nor a table.
    """
    if not isinstance(source, (str, os.PathLike)):
        return Targets(_target_table(read_small_table("targets", source)), None)
    path = Path(source)
    with errors_in(path):
        if holds_candidates(path):
            sets = CandidateSets.load(path)
            target = sets.item_ids.gather(sets.candidates[:, 0])
            return Targets(pl.DataFrame({"user_id": sets.user_ids, "target": target}), sets)
        return Targets(_target_table(_read_file("targets", path, _QRELS_FIELDS)), None)


def _read_file(argument: str, path: Path, fields: tuple[str, ...]) -> SmallTable:
    if Path(path.name.removesuffix(".gz")).suffix.lower() in _TABLES:
        return read_small_table(argument, path)
    with open_file(path) as file:
        return _read_trec(file, fields)


def _read_trec(file: io.BufferedReader, fields: tuple[str, ...]) -> SmallTable:
    """Read lines of fields that are separated by white space."""
    tables, numbers, errors, num_errors = [], [], [], 0
    for block in read_blocks(file, expected="UTF-8 text, or gzipped text"):
        lines = pl.Series(block.text.split("\n"), dtype=pl.String).str.strip_chars()
        rows = pl.Series(np.arange(block.line, block.line + len(lines)))
        split = lines.str.extract_all(r"\S+")
        width = split.list.len()
        wrong = (width != len(fields)) & (width > 0)
        for row in wrong.arg_true()[:10]:
            message = f"found {width[row]} fields, expected {len(fields)}: {' '.join(fields)}"
            errors.append(DataError(message, line=int(rows[row])))
        num_errors += int(wrong.sum())
        usable = width == len(fields)
        split = split.filter(usable)
        tables.append(pl.DataFrame({name: split.list.get(index) for index, name in enumerate(fields)}))
        numbers.append(rows.filter(usable))
    faults = RowFaults()
    faults.add_lines(errors, num_errors)
    if len(faults):
        raise faults.error()
    if sum(table.height for table in tables) == 0:
        raise DataError("found an empty file, expected lines of " + " ".join(fields))
    return SmallTable(pl.concat(tables).drop("rank", strict=False), pl.concat(numbers))


def _numbers(column: pl.Series, faults: RowFaults) -> pl.Series:
    """Convert numbers in text, or of any numeric type, to Int64 or Float64, and keep their order."""
    if column.dtype.is_integer() or column.dtype == pl.String:
        integers: pl.Series = column.cast(pl.Int64, strict=False)
        if integers.null_count() == column.null_count():
            faults.add(column.is_null(), column, "found nothing, expected a number")
            return integers
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        raise DataError(f"found the type {column.dtype}, expected a number", column=column.name)
    text = column.str.strip_chars() if column.dtype == pl.String else column
    floats: pl.Series = text.cast(pl.Float64, strict=False)
    faults.add(floats.is_null() & column.is_not_null(), column, "found {}, expected a number")
    faults.add(column.is_null(), column, "found nothing, expected a number")
    refuse_merged(column, floats)
    return floats


def refuse_merged(column: pl.Series, floats: pl.Series) -> None:
    """Refuse numbers that may become ties as floats: integers of more than 53 bits, and decimals.

    Parameters
    ----------
    column : polars.Series
        (N,): text, integers or decimals.
    floats : polars.Series
        Float64 (N,): the same numbers.

    Raises
    ------
    DataError
        If a float cannot hold an integer, or different decimals are equal as floats.
    """
    if column.dtype.is_decimal():
        if column.n_unique() > floats.n_unique():
            raise DataError("found different decimals that are equal as Float64", column=column.name)
        return
    if not (floats.abs() >= 2**53).any():
        return
    text = column.cast(pl.String)
    is_integer = text.str.contains(r"^[+-]?[0-9]+$").fill_null(value=False)
    digits = text.filter(is_integer).to_list()
    values = floats.filter(is_integer).to_list()
    for written, value in zip(digits, values, strict=True):
        if int(written) != value:
            raise DataError(
                f"found {written}, an integer that a Float64 cannot hold, beside other numbers; expected "
                "integers only, or numbers of at most 53 bits",
                column=column.name,
            )


def _run_table(source: SmallTable) -> pl.DataFrame:
    table = source.rows
    _need(table, ("user_id", "item_id"))
    if "score" not in table.columns and "rank" not in table.columns:
        raise DataError(f"lists: found neither 'score' nor 'rank' among {quoted(table.columns)}")
    faults = RowFaults(source.lines)
    users = to_ids(table["user_id"], faults)
    items = to_ids(table["item_id"], faults)
    numbers = {name: _numbers(table[name], faults) for name in ("score", "rank") if name in table.columns}
    if len(faults):
        raise faults.error()
    rows = pl.DataFrame([users.alias("user_id"), items.alias("item_id")]).with_columns(**numbers)
    for name, values in numbers.items():
        if values.dtype == pl.Float64 and values.is_nan().any():
            first = users[int(values.is_nan().arg_true()[0])]
            raise NotANumberError(
                f"{name}: found {values.is_nan().sum():,} NaN in {len(values):,} scores, the first for user "
                f"{first}, expected none"
            )
    if len(numbers) > 1:
        _check_ranks(rows)
    repeated = rows.select(pl.struct("user_id", "item_id").is_duplicated()).to_series()
    if repeated.any():
        row = int(repeated.arg_true()[0])
        raise DataError(f"lists: found the item {items[row]!r} twice in the list of the user {users[row]!r}")
    score = rows["score"] if "score" in numbers else -rows["rank"]
    return rows.select("user_id", "item_id", score.alias("score"))


def _check_ranks(table: pl.DataFrame) -> None:
    """Check that scores do not rise along the ranks of a list."""
    ordered = table.sort("user_id", "rank", maintain_order=True)
    rises = (ordered["score"] > ordered["score"].shift(1)) & (
        ordered["user_id"] == ordered["user_id"].shift(1)
    )
    if rises.any():
        row = int(rises.arg_true()[0])
        user, rank = ordered["user_id"][row], ordered["rank"][row]
        raise DataError(
            f"lists: found a higher score at rank {rank} than before it in the list of the user {user!r}"
        )


def _target_table(source: SmallTable) -> pl.DataFrame:
    table, lines = source
    if "relevance" in table.columns and "item_id" in table.columns:
        _need(table, ("user_id",))
        faults = RowFaults(lines)
        relevance = _numbers(table["relevance"], faults)
        if relevance.dtype == pl.Float64:
            is_number = relevance.is_finite()
            faults.add(~is_number.fill_null(value=True), table["relevance"], "found {}, expected a number")
        if len(faults):
            raise faults.error()
        # Missing ids are refused in rows that are not relevant, too.
        for name in ("user_id", "item_id"):
            _ids(table[name], lines)
        relevant = relevance > 0
        table = table.filter(relevant).rename({"item_id": "target"})
        lines = None if lines is None else lines.filter(relevant)
    _need(table, ("user_id", "target"))
    if len(table) == 0:
        raise DataError("targets: found no relevant item, expected one for each user")
    users, targets = _ids(table["user_id"], lines), _ids(table["target"], lines)
    repeated = users.is_duplicated()
    if repeated.any():
        user = users[int(repeated.arg_true()[0])]
        raise DataError(
            f"targets: found more than one relevant item of the user {user!r}, expected one for each user"
        )
    return pl.DataFrame([users.alias("user_id"), targets.alias("target")])


def _ids(column: pl.Series, lines: pl.Series | None) -> pl.Series:
    if lines is None:
        return normalise(column)
    faults = RowFaults(lines)
    ids = to_ids(column, faults)
    if len(faults):
        raise faults.error()
    return ids


def _need(table: pl.DataFrame, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(f"found no column {name!r} among {quoted(table.columns)}")
