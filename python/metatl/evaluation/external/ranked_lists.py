"""Read ranked lists and the item that each user chose, from TREC files and tables.

A TREC run has lines `user Q0 item rank score tag`, qrels have `user 0 item relevance`; fields are separated
by white space. As in trec_eval, items are ranked by the score, not by the rank in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.readers.parquet_files import read_parquet
from metatl.exceptions import DataError, MissingFileError, NotANumberError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from polars.datatypes import DataType

ListsLike: TypeAlias = Union[str, "os.PathLike[str]", pl.DataFrame]

_RUN_FIELDS = ("user_id", "Q0", "item_id", "rank", "score", "tag")
_QRELS_FIELDS = ("user_id", "iteration", "item_id", "relevance")


def read_lists(source: ListsLike) -> pl.DataFrame:
    """Read ranked lists.

    Parameters
    ----------
    source : str, path or polars.DataFrame
        A TREC run, or a table (a frame or Parquet) with ``user_id``, ``item_id`` and ``score`` or ``rank``,
        or both.

    Returns
    -------
    polars.DataFrame
        ``user_id``, ``item_id`` and ``score`` (Float64, higher is better), in the order of the source.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, an item is in a list twice, or the order by score and
        the order by rank differ.
    NotANumberError
        If scores are NaN; the message counts them.
    """
    return _read(source, _run_table)


def read_targets(source: ListsLike) -> pl.DataFrame:
    """Read the item that each user chose.

    Parameters
    ----------
    source : str, path or polars.DataFrame
        TREC qrels with one relevant item per user, or a table (a frame or Parquet) with ``user_id`` and
        ``target``, such as a candidate file.

    Returns
    -------
    polars.DataFrame
        ``user_id`` and ``target``, one row per user, in the order of the source.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing, or a user does not have exactly one relevant item.
    """
    return _read(source, _target_table)


def _read(source: ListsLike, check: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return check(source)
    path = Path(source)
    try:
        if path.suffix.lower() == ".parquet":
            return check(read_parquet(path).rows)
        return check(_read_trec(path, _RUN_FIELDS if check is _run_table else _QRELS_FIELDS))
    except DataError as error:
        raise error.in_file(path) from None
    except NotANumberError as error:
        raise NotANumberError(f"{path}: {error}") from None


def _read_trec(path: Path, fields: tuple[str, ...]) -> pl.DataFrame:
    """Read lines of fields that are separated by white space."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError("found no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"found bytes that are not UTF-8 at position {error.start}") from None
    lines = pl.Series(text.splitlines(), dtype=pl.String)
    numbers = pl.Series(np.arange(1, len(lines) + 1))
    parts = lines.str.strip_chars().str.replace_all(r"\s+", " ")
    full = parts != ""
    parts, numbers = parts.filter(full), numbers.filter(full)
    if len(parts) == 0:
        raise DataError("found an empty file, expected lines of " + " ".join(fields))
    split = parts.str.split(" ")
    wrong = split.list.len() != len(fields)
    if wrong.any():
        row = int(wrong.arg_true()[0])
        raise DataError(
            f"found {split.list.len()[row]} fields, expected {len(fields)}: {' '.join(fields)}",
            line=int(numbers[row]),
        )
    columns = {name: split.list.get(index) for index, name in enumerate(fields)}
    number = "score" if "score" in fields else "relevance"
    values = columns[number].cast(pl.Float64, strict=False)
    if values.null_count():
        row = int(values.is_null().arg_true()[0])
        raise DataError(
            f"found {columns[number][row]!r}, expected a number", line=int(numbers[row]), column=number
        )
    columns[number] = values
    columns.pop("rank", None)
    return pl.DataFrame(columns)


def _run_table(table: pl.DataFrame) -> pl.DataFrame:
    _need(table, ("user_id", "item_id"))
    if "score" not in table.columns and "rank" not in table.columns:
        raise DataError(f"lists: found neither 'score' nor 'rank' among {quoted(table.columns)}")
    _no_nulls(table, [name for name in ("user_id", "item_id", "score", "rank") if name in table.columns])
    for name in ("score", "rank"):
        if name in table.columns and not table[name].dtype.is_numeric():
            raise DataError(f"lists: found the type {table[name].dtype}, expected a number", column=name)
    by_score = "score" in table.columns
    score = table["score"].cast(pl.Float64) if by_score else -table["rank"].cast(pl.Float64)
    not_numbers = score.is_nan()
    if not_numbers.any():
        first = table["user_id"][int(not_numbers.arg_true()[0])]
        raise NotANumberError(
            f"score: found {not_numbers.sum():,} NaN in {len(score):,} scores, the first for user {first}, "
            "expected none"
        )
    if by_score and "rank" in table.columns:
        _check_ranks(table)
    repeated = table.select(pl.struct("user_id", "item_id").is_duplicated())["user_id"]
    if repeated.any():
        row = int(repeated.arg_true()[0])
        user, item = table["user_id"][row], table["item_id"][row]
        raise DataError(f"lists: found the item {item!r} twice in the list of the user {user!r}")
    return table.select("user_id", "item_id", score.alias("score"))


def _check_ranks(table: pl.DataFrame) -> None:
    """Check that scores do not rise along the ranks of a list."""
    ordered = table.sort("user_id", "rank", maintain_order=True)
    rises = (ordered["score"].diff() > 0) & (ordered["user_id"] == ordered["user_id"].shift(1))
    if rises.any():
        row = int(rises.arg_true()[0])
        user, rank = ordered["user_id"][row], ordered["rank"][row]
        raise DataError(
            f"lists: found a higher score at rank {rank} than before it in the list of the user {user!r}"
        )


def _target_table(table: pl.DataFrame) -> pl.DataFrame:
    if "relevance" in table.columns and "item_id" in table.columns:
        _need(table, ("user_id",))
        table = table.filter(pl.col("relevance") > 0).rename({"item_id": "target"})
    _need(table, ("user_id", "target"))
    _no_nulls(table, ("user_id", "target"))
    if len(table) == 0:
        raise DataError("targets: found no relevant item, expected one for each user")
    repeated = table["user_id"].is_duplicated()
    if repeated.any():
        user = table["user_id"][int(repeated.arg_true()[0])]
        raise DataError(
            f"targets: found more than one relevant item of the user {user!r}, expected one for each user"
        )
    return table.select("user_id", "target")


def _need(table: pl.DataFrame, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(f"found no column {name!r} among {quoted(table.columns)}")


def _no_nulls(table: pl.DataFrame, names: list[str] | tuple[str, ...]) -> None:
    for name in names:
        if table[name].null_count():
            raise DataError(f"found {table[name].null_count()} missing values, expected none", column=name)


def same_ids(lists: pl.DataFrame, targets: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cast ids to a common type: text, if the types differ.

    Parameters
    ----------
    lists : polars.DataFrame
        As `read_lists` gives them.
    targets : polars.DataFrame
        As `read_targets` gives them.
    """

    def common(one: DataType, other: DataType) -> DataType:
        return one if one == other else pl.String()

    user = common(lists["user_id"].dtype, targets["user_id"].dtype)
    item = common(lists["item_id"].dtype, targets["target"].dtype)
    return (
        lists.with_columns(pl.col("user_id").cast(user), pl.col("item_id").cast(item)),
        targets.with_columns(pl.col("user_id").cast(user), pl.col("target").cast(item)),
    )
