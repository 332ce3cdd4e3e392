"""Candidate sets: for each new user the target among negatives, the same for every system."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metatl import _metatl
from metatl.common.arguments import check_choice, check_type, whole_number
from metatl.common.files import TABLE_ENDINGS, write_parquet
from metatl.common.forks import refuse_forked_child
from metatl.data.fingerprints import add_array, add_ids, add_json
from metatl.data.histories import Histories
from metatl.data.interactions import count_distinct
from metatl.data.readers.parquet_files import read_metadata, read_parquet
from metatl.data.split import ColdStartSplit
from metatl.exceptions import DataError, InvalidArgumentError, NoNegativeError
from metatl.metrics.names import CandidateKind  # noqa: TC001 (pydantic reads it)

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

Excluded = Literal["all", "history"]
Part = Literal["test", "validation"]

FORMAT_VERSION = 2
_METADATA_KEY = "metatl.candidates"
_ID_TYPES = (pl.Int64, pl.String)
_LIST_COLUMNS = ("history", "negatives", "later")
_COLUMNS = ("user_id", "history", "target", "negatives", "later")
# Fixed, so that a file does not depend on the machine that wrote it.
_ROW_GROUP_ROWS = 100_000


@dataclass(frozen=True, eq=False, repr=False)
class CandidateSets:
    """Candidates of B new users: the target in column 0, then `n` distinct negatives.

    The rows are in the order of the users that :func:`sample_candidate_sets` got. Those of `test` and
    `validation` of a split are ascending, both by the index of the user in the split and by raw id.

    Attributes
    ----------
    users : ndarray
        int64 (B,): users of the split's `cold`; 0 to B−1 where there is no split.
    candidates : ndarray
        int64 (B, 1+n): items.
    histories : Histories
        The K items of each user that a model sees, the oldest first.
    later : Histories
        Items of each user after the target: each item once, in order of time, without those of the history
        and without the target. A full ranking excludes these and the history.
    kind : {"uniform", "popularity"}
        How negatives were drawn: `uniform`, or `popularity`: in proportion to training interactions.
    n : int
        Negatives per user.
    seed : int
        Seed of the negatives.
    k : int
        Length of the histories, K; the target is the interaction after them.
    exclude : {"all", "history"}
        Items that are never negatives: `all` items of the user, or the `history` only.
    part : {"test", "validation"} or None
        The part of the split that the users are: `test`, `validation`, or None for other users.
    split_protocol : dict
        The settings of the split, as :attr:`metatl.data.split.ColdStartSplit.protocol`.
    dropped : dict of str to int
        Number of rows, items and users that the split left out, by reason.
    dataset_fingerprint : str
        Fingerprint of the interactions that were split.
    num_items : int
        Number of items in the catalogue, among which a full ranking ranks.
    user_ids, item_ids : polars.Series
        Raw ids (B,) of the users, and raw ids (I,) of the items that `candidates` indexes: those of the
        catalogue or, for a file that is read without its split, those that occur in the file.
    """

    users: NDArray[np.int64]
    candidates: NDArray[np.int64]
    histories: Histories
    later: Histories
    kind: CandidateKind
    n: int
    seed: int
    k: int
    exclude: Excluded
    part: Part | None
    split_protocol: dict[str, Any]
    dropped: dict[str, int]
    dataset_fingerprint: str
    num_items: int
    user_ids: pl.Series
    item_ids: pl.Series

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings of the candidates, as JSON can hold them."""
        names = ("k", "kind", "n", "seed", "exclude")
        drawn = {name: getattr(self, name) for name in names}
        return {**drawn, "users": self.part, "split": self.split_protocol}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal of the content of the file: the protocol, the counts and the raw ids."""
        return _sha256(self._description(), self._raw())

    @cached_property
    def negatives_in_catalogue(self) -> NDArray[np.int64]:
        """int64 (B,): number of items new to the user, which a full ranking compares the target with."""
        count = len(self.users)
        rows = np.concatenate(
            [
                np.repeat(np.arange(count), self.histories.lengths),
                np.arange(count),
                np.repeat(np.arange(count), self.later.lengths),
            ]
        )
        items = np.concatenate([self.histories.items, self.candidates[:, 0], self.later.items])
        return self.num_items - count_distinct(rows, items, count, len(self.item_ids))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the candidates to a Parquet file, in one step.

        One row per user, in the order of `users`, with raw ids throughout:

        =============  ==========================================================================
        ``user_id``    the user
        ``history``    list of the K items that a model sees, the oldest first
        ``target``     the item that follows; column 0 of a user's scores
        ``negatives``  list of n items: columns 1 to n of the scores, in this order
        ``later``      list of the items that a full ranking excludes too, in order of time
        =============  ==========================================================================

        The file's metadata hold, under `metatl.data.candidates`, JSON with `format_version`, `protocol`
        (:attr:`protocol`), `dataset_fingerprint`, `num_items`, `dropped` and `sha256` (of all the others and
        of the rows).

        Parameters
        ----------
        path : str or os.PathLike
            The file to write or to replace.

        Raises
        ------
        OSError
            If the file cannot be written; an existing file is unchanged.
        """
        refuse_forked_child()
        if Path(path).suffix.lower() in (set(TABLE_ENDINGS) - {".parquet"}):
            raise InvalidArgumentError(f"path: found {path}, expected a name that ends in .parquet")
        record = {**self._description(), "sha256": self.sha256}
        write_parquet(
            path,
            self._raw(),
            metadata={_METADATA_KEY: json.dumps(record, sort_keys=True)},
            row_group_size=_ROW_GROUP_ROWS,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        split: ColdStartSplit | None = None,
        *,
        max_bytes: int | None = None,
    ) -> CandidateSets:
        """Read candidates that :meth:`save` wrote.

        Parameters
        ----------
        path : str or os.PathLike
            The file.
        split : ColdStartSplit, optional
            The split that the candidates were sampled for, or one with the same users, targets and items.
            Without it, items are numbered by their rank among the sorted distinct raw ids of the file, and
            users by their row, which is enough to rank scores.
        max_bytes : int, optional
            The largest size of the table in memory, in bytes; see
            :func:`metatl.data.readers.parquet_files.read_parquet`.

        Raises
        ------
        MissingFileError
            If there is no such file.
        DataError
            If the file is damaged (its content has another SHA-256 than it says), of another
            format, too large, or made for other data, another K or another split.
        """
        try:
            record, raw = _read(Path(path), max_bytes)
            return _without_split(record, raw) if split is None else _with_split(record, raw, split)
        except DataError as error:
            raise error.in_file(path) from None

    def _description(self) -> dict[str, Any]:
        names = ("protocol", "dataset_fingerprint", "num_items", "dropped")
        return {"format_version": FORMAT_VERSION, **{name: getattr(self, name) for name in names}}

    def _raw(self) -> pl.DataFrame:
        items = np.column_stack([self.histories.items.reshape(-1, self.k), self.candidates])
        raw = self.item_ids.gather(items.ravel()).reshape(items.shape)
        columns = {
            "user_id": self.user_ids,
            "history": raw.arr.to_list().list.head(self.k),
            "target": raw.arr.get(self.k),
            "negatives": raw.arr.to_list().list.slice(self.k + 1),
            "later": _lists(self.item_ids, self.later),
        }
        return pl.DataFrame(columns).rechunk()

    def __repr__(self) -> str:
        drawn = f"{self.n} {self.kind} negatives, k={self.k}, seed={self.seed}"
        return f"CandidateSets({len(self.users)} users, {drawn})"


def holds_candidates(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is Parquet with the metadata of saved candidates.

    Parameters
    ----------
    path : str or os.PathLike
        The file. One that is missing or damaged holds none.
    """
    try:
        with Path(path).open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        return is_parquet and _METADATA_KEY in read_metadata(path)
    except (DataError, OSError):
        return False


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_Count = Annotated[int, Field(ge=0, lt=2**63)]
_PositiveCount = Annotated[int, Field(ge=1, lt=2**63)]


class _Protocol(_Strict):
    k: _PositiveCount
    kind: CandidateKind
    n: _PositiveCount
    seed: int = Field(ge=0)
    exclude: Excluded
    users: Part | None
    split: dict[str, Any]


class _Record(_Strict):
    format_version: Literal[2]
    protocol: _Protocol
    dataset_fingerprint: str
    num_items: _PositiveCount
    dropped: dict[str, _Count]
    sha256: str

    def fields(self) -> dict[str, Any]:
        """Return the fields of :class:`CandidateSets` that the record holds."""
        protocol = dict(self.protocol)
        protocol["part"] = protocol.pop("users")
        protocol["split_protocol"] = protocol.pop("split")
        names = ("dataset_fingerprint", "num_items", "dropped")
        return {**protocol, **{name: getattr(self, name) for name in names}}


def sample_candidate_sets(
    split: ColdStartSplit,
    users: NDArray[np.int64],
    *,
    n: int = 100,
    kind: CandidateKind = "uniform",
    seed: int = 0,
    exclude: Excluded = "all",
    num_threads: int | None = None,
) -> CandidateSets:
    """Sample the candidates of new users.

    The candidates of a user depend on the split, the user and the seed only, not on the other users of the
    call or on the number of threads.

    Parameters
    ----------
    split : ColdStartSplit
        The split; its K also enters the draw, so that another K gives other negatives.
    users : ndarray
        int64 (B,): users of `split.cold`, as `split.test`.
    n : int
        Negatives per user, distinct.
    kind : {"uniform", "popularity"}
        `uniform` over the items that are not excluded, or `popularity`: one after the other, with
        probabilities in proportion to the training interactions of the items.
    seed : int
        Seed of the negatives.
    exclude : {"all", "history"}
        `all` excludes every item of the user, earlier or later. `history` excludes the K items of the
        history only, as the released program does: later items, the target included, can be negatives.
    num_threads : int, optional
        Number of threads. By default `METATL_NUM_THREADS`, or all.

    Returns
    -------
    CandidateSets
        One row per user, in the order of `users`.

    Raises
    ------
    NoNegativeError
        If there are not `n` items to draw for some user.
    InvalidArgumentError
        For an argument outside its range.
    """
    refuse_forked_child()
    check_type("split", split, ColdStartSplit, "metatl.ColdStartSplit, as metatl.cold_start_split gives")
    check_type("users", users, np.ndarray, "a 1-d array of int64, as split.test")
    if users.dtype != np.int64 or users.ndim != 1:
        raise InvalidArgumentError(
            f"users: found a {users.ndim}-d array of {users.dtype}, expected a 1-d array of int64, as "
            "split.test"
        )
    n = whole_number("n", n, 1)
    check_choice("kind", kind, ("uniform", "popularity"))
    check_choice("exclude", exclude, ("all", "history"))
    num_users = split.cold.num_users
    if len(users) > 0 and not 0 <= users.min() <= users.max() < num_users:
        raise InvalidArgumentError(
            f"users: found {users.min()} to {users.max()}, expected 0 to {num_users - 1}: users of split.cold"
        )
    if exclude == "all":
        index = split.cold.index
    else:
        histories = split.histories(np.arange(num_users))
        indptr = np.arange(num_users + 1) * split.k
        index = _metatl.Interactions(indptr, histories.ravel(), split.num_items)
    try:
        candidates = _metatl.sample_candidates(
            index,
            users,
            split.targets(users),
            n,
            seed=seed,
            epoch=split.k,
            weights=split.train.item_counts.astype(np.float64) if kind == "popularity" else None,
            exclude_target=exclude == "all",
            num_threads=num_threads,
        )
    except NoNegativeError:
        _name_who_has_too_few(split, users, n, exclude)
        raise
    return CandidateSets(
        users=users,
        candidates=candidates,
        histories=Histories.from_matrix(split.histories(users)),
        later=_later(split, users),
        kind=kind,
        n=n,
        seed=seed,
        k=split.k,
        exclude=exclude,
        part=_part(split, users),
        split_protocol=split.protocol,
        dropped=split.dropped,
        dataset_fingerprint=split.dataset_fingerprint,
        num_items=split.num_items,
        user_ids=split.cold.user_ids.gather(users),
        item_ids=split.item_ids,
    )


def _name_who_has_too_few(split: ColdStartSplit, users: NDArray[np.int64], n: int, exclude: Excluded) -> None:
    """Raise NoNegativeError with the raw id of the first user with too few items: the kernel has no ids."""
    if exclude == "all":
        own = split.cold.distinct_items[users]
    else:
        rows = np.repeat(np.arange(len(users)), split.k)
        own = count_distinct(rows, split.histories(users).ravel(), len(users), split.num_items)
    available = split.num_items - own
    short = np.flatnonzero(available < n)
    if len(short) > 0:
        user_id = split.cold.user_ids[int(users[short[0]])]
        raise NoNegativeError(
            f"user {user_id}: found {available[short[0]]} items that can be drawn as negatives, expected at "
            f"least {n}"
        ) from None


def _part(split: ColdStartSplit, users: NDArray[np.int64]) -> Part | None:
    """Return the part of the split that the users are, if they are in its order."""
    if len(users) == 0:
        return None
    if np.array_equal(users, split.test):
        return "test"
    return "validation" if np.array_equal(users, split.validation) else None


def _later(split: ColdStartSplit, users: NDArray[np.int64]) -> Histories:
    """Find the items of users after their targets: each once, without those of the history and the target."""
    rows = Histories(split.cold.indptr, split.cold.items).select(users)
    row_of = np.repeat(np.arange(len(rows)), rows.lengths)
    rank = np.arange(len(rows.items)) - np.repeat(rows.indptr[:-1], rows.lengths)
    pair = pl.Series(row_of * split.num_items + rows.items)
    kept = pair.is_first_distinct().to_numpy() & (rank > split.k)
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.bincount(row_of[kept], minlength=len(rows)), out=indptr[1:])
    return Histories(indptr, rows.items[kept])


def _lists(item_ids: pl.Series, rows: Histories) -> pl.Series:
    """Convert ragged rows to a column of lists of raw ids."""
    count = np.arange(len(rows))
    items = item_ids.gather(rows.items)
    # A null goes before the items of each row, so that a row without items is a group too.
    missing = pl.Series([None], dtype=items.dtype).new_from_index(0, len(rows))
    table = pl.DataFrame(
        {"row": np.concatenate([count, np.repeat(count, rows.lengths)]), "item": missing.append(items)}
    )
    lists = table.group_by("row", maintain_order=True).agg(pl.col("item").drop_nulls())
    return lists["item"]


def _flat(lists: pl.Series) -> pl.Series:
    """Concatenate the items of all lists; `explode` alone would give a null for an empty list."""
    items: pl.Series = lists.filter(lists.list.len() > 0).explode()
    return items


def _ragged(lists: pl.Series, items: NDArray[np.int64]) -> Histories:
    indptr = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum(lists.list.len().to_numpy(), out=indptr[1:])
    return Histories(indptr, items)


def _sha256(description: dict[str, Any], raw: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    add_json(digest, ["metatl candidates", description])
    for name in _COLUMNS:
        column = raw[name]
        if name in _LIST_COLUMNS:
            add_array(digest, column.list.len().cast(pl.Int64).to_numpy())
            column = _flat(column)
        add_ids(digest, column)
    return digest.hexdigest()


def _with_split(record: _Record, raw: pl.DataFrame, split: ColdStartSplit) -> CandidateSets:
    """Convert raw ids to the indices of the split, and check that the candidates are of the split."""
    if record.dataset_fingerprint != split.dataset_fingerprint:
        raise DataError(
            f"found candidates for the data {record.dataset_fingerprint[:12]}, "
            f"expected {split.dataset_fingerprint[:12]} (fingerprints); sample them from these data"
        )
    if record.protocol.k != split.k:
        raise DataError(f"found candidates for K = {record.protocol.k}, expected {split.k}")
    users = split.cold.find_users(raw["user_id"])
    if (users < 0).any():
        unknown = raw["user_id"][int(np.argmin(users))]
        raise DataError(f"found the user {unknown!r}, who is not in the split; split as for the candidates")
    targets = split.cold.find_items(raw["target"])
    negatives, histories, later = (
        _ragged(raw[name], split.cold.find_items(_flat(raw[name])))
        for name in ("negatives", "history", "later")
    )
    expected = _later(split, users)
    if (
        record.num_items != split.num_items
        or (negatives.items < 0).any()
        or not np.array_equal(targets, split.targets(users))
        or not np.array_equal(histories.items, split.histories(users).ravel())
        or not np.array_equal(later.indptr, expected.indptr)
        or not np.array_equal(later.items, expected.items)
    ):
        raise DataError("found targets or items that are not those of the split; split as for the candidates")
    return _sets(record, raw, users, split.item_ids, targets, negatives, histories, later)


def _without_split(record: _Record, raw: pl.DataFrame) -> CandidateSets:
    """Index the items by their rank among the sorted ids of the file, and the users by their row."""
    item_ids = pl.concat([raw["target"], *(_flat(raw[name]) for name in _LIST_COLUMNS)]).unique().sort()
    if len(item_ids) > record.num_items:
        raise DataError(f"found {len(item_ids)} items, expected at most the catalogue's {record.num_items}")
    numbers = pl.Series(np.arange(len(item_ids)))

    def find(column: pl.Series) -> NDArray[np.int64]:
        items: NDArray[np.int64] = column.replace_strict(item_ids, numbers, return_dtype=pl.Int64).to_numpy()
        return items

    negatives, histories, later = (
        _ragged(raw[name], find(_flat(raw[name]))) for name in ("negatives", "history", "later")
    )
    users = np.arange(len(raw))
    return _sets(record, raw, users, item_ids, find(raw["target"]), negatives, histories, later)


def _sets(
    record: _Record,
    raw: pl.DataFrame,
    users: NDArray[np.int64],
    item_ids: pl.Series,
    targets: NDArray[np.int64],
    negatives: Histories,
    histories: Histories,
    later: Histories,
) -> CandidateSets:
    matrix = negatives.items.reshape(len(raw), record.protocol.n)
    return CandidateSets(
        users=users,
        candidates=np.column_stack([targets, matrix]),
        histories=histories,
        later=later,
        user_ids=raw["user_id"],
        item_ids=item_ids,
        **record.fields(),
    )


def _read(path: Path, max_bytes: int | None) -> tuple[_Record, pl.DataFrame]:
    """Read a candidate file, check its form, and check it against the SHA-256 that it holds."""
    raw, metadata = read_parquet(path, _COLUMNS, max_bytes=max_bytes)
    if _METADATA_KEY not in metadata:
        raise DataError("found a Parquet file without metadata of metatl, expected saved candidates")
    damaged = "found a damaged candidate file ({}); sample the candidates again"
    try:
        described = json.loads(metadata[_METADATA_KEY])
        version = described["format_version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise DataError(damaged.format("its metadata are not the JSON that metatl writes")) from None
    if version != FORMAT_VERSION:
        raise DataError(
            f"found candidate format {version!r:.20}, expected {FORMAT_VERSION}; sample the candidates again"
        )
    try:
        record = _Record.model_validate(described)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(damaged.format(f"its metadata have no usable {where}")) from None
    _check_form(record, raw)
    description = {name: value for name, value in described.items() if name != "sha256"}
    if _sha256(description, raw) != record.sha256:
        raise DataError(damaged.format("its SHA-256 is not that of its content"))
    return record, raw


def _check_form(record: _Record, raw: pl.DataFrame) -> None:
    """Check types and lengths, which the checksum does not cover: it fits whatever it was computed from."""
    item_type = raw["target"].dtype
    for name in ("user_id", "target", *_LIST_COLUMNS):
        column, is_list = raw[name], name in _LIST_COLUMNS
        if column.dtype not in ([pl.List(item_type)] if is_list else _ID_TYPES):
            raise DataError(f"found values of type {column.dtype}, expected raw ids", column=name)
        if column.null_count() > 0 or (is_list and _flat(column).null_count() > 0):
            raise DataError("found a row without a value, expected raw ids", column=name)
    for name, length in (("history", record.protocol.k), ("negatives", record.protocol.n)):
        if (raw[name].list.len() != length).any():
            raise DataError(f"found a list of another length, expected {length} items", column=name)
