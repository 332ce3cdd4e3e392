"""Candidate sets: for each new user the target among negatives, the same for every system."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metatl import _metatl
from metatl.common.arguments import check_type, whole_number
from metatl.common.files import replace_file
from metatl.data.fingerprints import add_array, add_ids, add_json
from metatl.data.histories import Histories
from metatl.data.interactions import count_distinct
from metatl.data.readers.parquet_files import read_parquet
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
    """Candidates of B new users: column 0 is the target, then come `n` distinct negatives.

    The rows are in the order in which the users were given to :func:`sample_candidate_sets`; those of a
    split's `test` and `validation` are ascending, by the split's number of the user and by raw id alike.

    Attributes
    ----------
    users
        int64 (B,): users of the split's `cold`; 0 to B−1 where there is no split.
    candidates
        int64 (B, 1+n): items.
    histories
        The K items of each user that a model sees, the oldest first.
    later
        What else each user took after the target: each item once, in order of time, without those of the
        history and without the target. A full ranking excludes these and the history.
    kind
        How negatives were drawn: `uniform`, or `popularity` for drawing by training interactions.
    n
        Negatives per user.
    seed
        Seed of the negatives.
    k
        Length of the histories, K; the target is the interaction after them.
    exclude
        What is never a negative: `all` that the user interacted with, or the `history` only.
    part
        Which users of the split these are: `test`, `validation`, or None for any others.
    split_protocol
        What the split was made with, as :attr:`metatl.data.split.ColdStartSplit.protocol`.
    dropped
        What the split left out, by reason: counts.
    dataset_fingerprint
        Fingerprint of the interactions that were split.
    num_items
        Items of the catalogue, in which a full ranking ranks.
    user_ids, item_ids
        Raw ids (B,) of the users, and raw ids (I,) of the items that `candidates` counts: the catalogue's;
        of a file that is read without its split, those that occur in it.
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
        """What the candidates were made with, as JSON can hold it."""
        names = ("k", "kind", "n", "seed", "exclude")
        drawn = {name: getattr(self, name) for name in names}
        return {**drawn, "users": self.part, "split": self.split_protocol}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal of all that the file holds: the protocol, the counts and the raw ids."""
        return _sha256(self._description(), self._raw())

    @cached_property
    def negatives_in_catalogue(self) -> NDArray[np.int64]:
        """int64 (B,): items that a full ranking compares each target with, those that the user never had."""
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

        One row a user, in the order of `users`, with raw ids throughout:

        =============  ==========================================================================
        ``user_id``    the user
        ``history``    list of K items: what a model sees, the oldest first
        ``target``     the item that follows; column 0 of a user's scores
        ``negatives``  list of n items: columns 1 to n of the scores, in this order
        ``later``      list: what a full ranking excludes besides the history, in order of time
        =============  ==========================================================================

        The file's metadata hold, under `metatl.data.candidates`, JSON with `format_version`, `protocol`
        (:attr:`protocol`), `dataset_fingerprint`, `num_items`, `dropped` and `sha256` (of all the others and
        of the rows).

        Parameters
        ----------
        path
            File to write; replaced if it exists.

        Raises
        ------
        OSError
            If it cannot be written; what was there stays.
        """
        record = {**self._description(), "sha256": self.sha256}
        content = io.BytesIO()
        self._raw().write_parquet(
            content,
            row_group_size=_ROW_GROUP_ROWS,
            metadata={_METADATA_KEY: json.dumps(record, sort_keys=True)},
        )
        with replace_file(path) as temporary:
            temporary.write_bytes(content.getbuffer())

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
        path
            The file.
        split
            The split that the candidates were sampled for, or one with the same users, targets and items.
            Without it, items are numbered by their place among the distinct raw ids of the file, sorted, and
            users by their row: all that a ranking of scores needs.
        max_bytes
            The most bytes that the file may unpack to; see
            :func:`metatl.data.readers.parquet_files.read_parquet`.

        Raises
        ------
        DataError
            If the file is missing, damaged (its content has another SHA-256 than it says), of another
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


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Protocol(_Strict):
    k: int = Field(ge=1)
    kind: CandidateKind
    n: int = Field(ge=1)
    seed: int = Field(ge=0)
    exclude: Excluded
    users: Part | None
    split: dict[str, Any]


class _Record(_Strict):
    format_version: Literal[2]
    protocol: _Protocol
    dataset_fingerprint: str
    num_items: int = Field(ge=1)
    dropped: dict[str, int]
    sha256: str

    def fields(self) -> dict[str, Any]:
        """Fields of :class:`CandidateSets` that the record holds."""
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

    A user's candidates are a function of the split, the user and the seed: they do not depend on the
    other users of the call, nor on the number of threads.

    Parameters
    ----------
    split
        The split; its K also enters the draw, so that another K gives other negatives.
    users
        int64 (B,): users of `split.cold`, as `split.test`.
    n
        Negatives per user, distinct.
    kind
        `uniform` over the items that are not excluded, or `popularity`: drawn one after the other with
        probabilities in proportion to the items' training interactions.
    seed
        Seed of the negatives.
    exclude
        `all`: a negative is nothing that the user interacted with, before or after. `history`: the
        released program's rule, which excludes the K items of the history only, so that later items,
        the target among them, can be negatives.
    num_threads
        Threads to sample with; `METATL_NUM_THREADS`, else all, where it is None.

    Raises
    ------
    NoNegativeError
        If there are not `n` items to draw for some user.
    InvalidArgumentError
        For an argument outside its range.
    """
    check_type("split", split, ColdStartSplit, "metatl.ColdStartSplit, as metatl.cold_start_split gives")
    check_type("users", users, np.ndarray, "a 1-d array of int64, as split.test")
    if users.dtype != np.int64 or users.ndim != 1:
        raise InvalidArgumentError(
            f"users: found a {users.ndim}-d array of {users.dtype}, expected a 1-d array of int64, as "
            "split.test"
        )
    n = whole_number("n", n, 1)
    if kind not in ("uniform", "popularity"):
        raise InvalidArgumentError(f"kind: found {kind!r}, expected 'uniform' or 'popularity'")
    if exclude not in ("all", "history"):
        raise InvalidArgumentError(f"exclude: found {exclude!r}, expected 'all' or 'history'")
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
    """Name the first user with too few items to draw from by the raw id, which the kernel does not know."""
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
    """Name the part of the split that the users are, in its order."""
    if len(users) == 0:
        return None
    if np.array_equal(users, split.test):
        return "test"
    return "validation" if np.array_equal(users, split.validation) else None


def _later(split: ColdStartSplit, users: NDArray[np.int64]) -> Histories:
    """Find what users took after their targets: each item once, and none of the history or the target."""
    rows = Histories(split.cold.indptr, split.cold.items).select(users)
    row_of = np.repeat(np.arange(len(rows)), rows.lengths)
    place = np.arange(len(rows.items)) - np.repeat(rows.indptr[:-1], rows.lengths)
    pair = pl.Series(row_of * split.num_items + rows.items)
    kept = pair.is_first_distinct().to_numpy() & (place > split.k)
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.bincount(row_of[kept], minlength=len(rows)), out=indptr[1:])
    return Histories(indptr, rows.items[kept])


def _lists(item_ids: pl.Series, rows: Histories) -> pl.Series:
    """Raw ids of ragged rows, as a column of lists."""
    count = np.arange(len(rows))
    items = item_ids.gather(rows.items)
    # A missing item goes before those of each row, so that a row without items is a group as well.
    missing = pl.Series([None], dtype=items.dtype).new_from_index(0, len(rows))
    table = pl.DataFrame(
        {"row": np.concatenate([count, np.repeat(count, rows.lengths)]), "item": missing.append(items)}
    )
    lists = table.group_by("row", maintain_order=True).agg(pl.col("item").drop_nulls())
    return lists["item"]


def _flat(lists: pl.Series) -> pl.Series:
    """Take the items of all lists; an empty list has none, where `explode` alone makes it a missing one."""
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
    """Take the split's numbers of users and items, and check that they are the split's."""
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
        raise DataError(
            f"found the user {unknown!r}, who is none of the split's; split as for the candidates"
        )
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
        raise DataError("found targets or items that are not the split's; split as for the candidates")
    return _sets(record, raw, users, split.item_ids, targets, negatives, histories, later)


def _without_split(record: _Record, raw: pl.DataFrame) -> CandidateSets:
    """Give the items of the file numbers by their place among its sorted ids, and the users by their row."""
    item_ids = pl.concat([raw["target"], *(_flat(raw[name]) for name in _LIST_COLUMNS)]).unique().sort()
    if len(item_ids) > record.num_items:
        raise DataError(f"found {len(item_ids)} items, expected at most the catalogue's {record.num_items}")
    numbers = pl.Series(np.arange(len(item_ids)))

    def find(column: pl.Series) -> NDArray[np.int64]:
        found: NDArray[np.int64] = column.replace_strict(item_ids, numbers, return_dtype=pl.Int64).to_numpy()
        return found

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
        raise DataError(damaged.format("its metadata are no JSON of ours")) from None
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
    """Check types and lengths: a checksum is right for anything that it was made from."""
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
