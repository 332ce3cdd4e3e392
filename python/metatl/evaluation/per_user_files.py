"""The per-user file: the ranks and metrics of every user of an evaluation, ready to be compared.

A Parquet file with one row per user and ranking. Its metadata hold a record of the system, the tie rule, the
data and the candidates, so that files of different tests are not compared by mistake, and a SHA-256 of the
record and the rows. Files of format 1, which metatl 0.1.0 wrote, have no SHA-256.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from metatl.common.files import write_table
from metatl.data.fingerprints import add_array, add_ids, add_json
from metatl.data.readers.opened_files import refuse_damage
from metatl.data.readers.parquet_files import read_parquet
from metatl.exceptions import DataError, MissingFileError
from metatl.metrics.names import RANKINGS, TieRule

if TYPE_CHECKING:
    import os

FORMAT_VERSION = 2
_METADATA_KEY = "metatl.per_user"
_SHA256_KEY = "metatl.per_user.sha256"

PER_USER_RANKINGS = (*RANKINGS, "corrected")
"""The rankings that a file may hold; evaluations write the first two."""
_FIXED_COLUMNS = ("user_id", "ranking", "rank", "greater", "equal")


class PerUserRecord(BaseModel):
    """What the users' values were computed from.

    Attributes
    ----------
    format_version : int
        Version of the file format; the record of a file of format 1 is read as one of the current format.
    system : str
        Name of the system.
    ties : {"worst", "mean", "best"}
        The rank of the target among items with the same score.
    metrics : list of str
        The columns that are metrics.
    candidates_sha256 : str or None
        Digest of the candidates; None if users were ranked among all items only.
    dataset_fingerprint : str or None
        Fingerprint of the interactions; None where it is not known.
    split_sha256 : str or None
        Digest of the settings of the split, including K; None where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    system: str
    ties: TieRule
    metrics: list[str]
    candidates_sha256: str | None
    dataset_fingerprint: str | None
    split_sha256: str | None = None


def write_per_user(path: str | os.PathLike[str], frame: pl.DataFrame, record: PerUserRecord) -> None:
    """Write the users' values, in one step.

    Parameters
    ----------
    path : str or path-like
        File to write; replaced if it exists.
    frame : polars.DataFrame
        One row per user and ranking: ``user_id`` (raw), ``ranking``, ``rank``, ``greater``, ``equal`` and one
        Float64 column per metric of the record, as in
        :attr:`metatl.evaluation.measures.Evaluation.per_user`.
    record : PerUserRecord
        What they were computed from.

    Raises
    ------
    DataError
        If :func:`read_per_user` would refuse the frame.
    OSError
        If the file cannot be written; the old file is kept then.
    """
    try:
        _check(frame, record)
    except DataError as error:
        raise error.in_file(path) from None
    metadata = {_METADATA_KEY: record.model_dump_json(), _SHA256_KEY: _sha256(frame, record)}
    write_table(path, frame, metadata=metadata)


def read_per_user(path: str | os.PathLike[str]) -> tuple[PerUserRecord, pl.DataFrame]:
    """Read what :func:`write_per_user` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    record : PerUserRecord
        What the values were computed from.
    frame : polars.DataFrame
        The values, one row per user and ranking.

    Raises
    ------
    DataError
        If the file is missing, damaged, edited, of another format version or not a per-user file; if it lacks
        a column, has a user twice in a ranking, or a metric that is not finite.
    """
    try:
        record, frame, sha256 = _read(Path(path))
        # Columns of other types than a per-user file has, such as durations, have no text and no numbers.
        with refuse_damage("a per-user table"):
            _check(frame, record)
            if record.format_version != 1:
                _check_sha256(sha256, frame, record)
    except DataError as error:
        raise error.in_file(path) from None
    return record.model_copy(update={"format_version": FORMAT_VERSION}), frame


def _read(path: Path) -> tuple[PerUserRecord, pl.DataFrame, str | None]:
    try:
        frame, metadata = read_parquet(path)
    except MissingFileError:
        raise MissingFileError("found no such file") from None
    except DataError as error:
        raise DataError(f"{error.message}; evaluate again") from None
    if _METADATA_KEY not in metadata:
        raise DataError(
            "found a Parquet file without the record of an evaluation, expected one that "
            "`metatl-eval RUN --per-user FILE` wrote; evaluate again"
        )
    return _parse(metadata[_METADATA_KEY]), frame, metadata.get(_SHA256_KEY)


def _sha256(frame: pl.DataFrame, record: PerUserRecord) -> str:
    """Return the SHA-256 of the record and of the columns that a comparison reads."""
    digest = hashlib.sha256()
    add_json(digest, record.model_dump(mode="json"))
    for name in (*_FIXED_COLUMNS, *record.metrics):
        column = frame[name]
        add_json(digest, [name, column.null_count()])
        if column.dtype == pl.Float64:
            digest.update(column.to_numpy().astype("<f8").tobytes())
        elif column.dtype.is_integer() and column.null_count() == 0:
            add_array(digest, column.to_numpy().astype(np.int64))
        else:
            add_ids(digest, column.cast(pl.String).fill_null(""))
    return digest.hexdigest()


def _parse(text: str) -> PerUserRecord:
    try:
        record = PerUserRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "JSON"
        raise DataError(f"found a damaged record ({field}: {first['msg']}); evaluate again") from None
    if record.format_version not in (1, FORMAT_VERSION):
        raise DataError(
            f"found per-user format {record.format_version}, expected {FORMAT_VERSION}; evaluate again"
        )
    return record


def _check_sha256(expected: str | None, frame: pl.DataFrame, record: PerUserRecord) -> None:
    if expected != _sha256(frame, record):
        raise DataError("found values that were changed (their SHA-256 differs); evaluate again")


def _check(frame: pl.DataFrame, record: PerUserRecord) -> None:
    for column in (*_FIXED_COLUMNS, *record.metrics):
        if column not in frame.columns:
            raise DataError(f"found no such column, only {', '.join(frame.columns)}", column=column)
    _check_rows(frame)
    for metric in record.metrics:
        values = frame[metric]
        if values.dtype != pl.Float64:
            raise DataError(f"found {values.dtype}, expected Float64", column=metric)
        missing = len(values) - int(values.is_finite().sum())
        if missing > 0:
            raise DataError(f"found {missing} values that are not finite, expected none", column=metric)


def _check_rows(frame: pl.DataFrame) -> None:
    """Check that each row has a user and a ranking, and that no two rows have the same."""
    rankings = frame["ranking"]
    if rankings.dtype != pl.String:
        raise DataError(f"found {rankings.dtype}, expected String", column="ranking")
    unknown = rankings.filter(~rankings.is_in(PER_USER_RANKINGS).fill_null(value=False))
    if len(unknown) > 0:
        raise DataError(
            f"found {unknown[0]!r}, expected one of {', '.join(PER_USER_RANKINGS)}", column="ranking"
        )
    if frame["user_id"].null_count() > 0:
        raise DataError(
            f"found {frame['user_id'].null_count()} empty fields, expected none", column="user_id"
        )
    repeated = frame.filter(frame.select("user_id", "ranking").is_duplicated())
    if len(repeated) > 0:
        user, ranking = repeated.select("user_id", "ranking").row(0)
        raise DataError(
            f"found the user {user!r} more than once in the ranking {ranking!r}, expected once",
            column="user_id",
        )
