"""Candidate sets: for each new user the target among negatives, the same for every system."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl

from metatl import _metatl
from metatl.exceptions import DataError, InvalidArgumentError
from metatl.files import replace_file
from metatl.fingerprints import add_ids, add_json

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from metatl.split import ColdStartSplit

CandidateKind = Literal["uniform", "popularity"]
Excluded = Literal["all", "history"]

FORMAT_VERSION = 1
_METADATA_KEY = "metatl.candidates"


@dataclass(frozen=True, eq=False, repr=False)
class CandidateSets:
    """Candidates of B new users: column 0 is the target, then come `n` distinct negatives.

    Attributes
    ----------
    users
        int64 (B,): users of the split's `cold`.
    candidates
        int64 (B, 1+n): items.
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
    dataset_fingerprint
        Fingerprint of the interactions that were split.
    user_ids, item_ids
        Raw ids (B,) of the users, and raw ids (I,) of the items that `candidates` counts.
    """

    users: NDArray[np.int64]
    candidates: NDArray[np.int64]
    kind: CandidateKind
    n: int
    seed: int
    k: int
    exclude: Excluded
    dataset_fingerprint: str
    user_ids: pl.Series
    item_ids: pl.Series

    @property
    def protocol(self) -> dict[str, Any]:
        """What the candidates were made with, as JSON can hold it."""
        names = ("k", "kind", "n", "seed", "exclude", "dataset_fingerprint")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal of the protocol and of the raw ids."""
        return _sha256(self.protocol, self._raw())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the candidates to a Parquet file, in one step.

        The columns are `user_id`, `target` and `negatives` (a list), all raw ids. The file's metadata
        hold, under `metatl.candidates`, the protocol and the SHA-256 as JSON.

        Parameters
        ----------
        path
            File to write; replaced if it exists.

        Raises
        ------
        OSError
            If it cannot be written; what was there stays.
        """
        record = {"format_version": FORMAT_VERSION, "protocol": self.protocol, "sha256": self.sha256}
        content = io.BytesIO()
        self._raw().write_parquet(content, metadata={_METADATA_KEY: json.dumps(record, sort_keys=True)})
        with replace_file(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    @classmethod
    def load(cls, path: str | os.PathLike[str], split: ColdStartSplit) -> CandidateSets:
        """Read candidates that :meth:`save` wrote.

        Parameters
        ----------
        path
            The file.
        split
            The split that the candidates were sampled for, or one with the same users, targets and items.

        Raises
        ------
        DataError
            If the file is missing, damaged (its content has another SHA-256 than it says), of another
            format, or made for other data, another K or another split.
        """
        try:
            return _load(Path(path), split)
        except DataError as error:
            raise DataError(error.message, file=str(path)) from None

    def _raw(self) -> pl.DataFrame:
        raw = self.item_ids.gather(self.candidates.ravel()).reshape((len(self.users), 1 + self.n))
        return pl.DataFrame(
            {
                "user_id": self.user_ids,
                "target": raw.arr.get(0),
                "negatives": raw.arr.to_list().list.slice(1),
            }
        )

    def __repr__(self) -> str:
        drawn = f"{self.n} {self.kind} negatives, k={self.k}, seed={self.seed}"
        return f"CandidateSets({len(self.users)} users, {drawn})"


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
    if n < 1:
        raise InvalidArgumentError(f"n: found {n}, expected at least 1")
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
    return CandidateSets(
        users=users,
        candidates=candidates,
        kind=kind,
        n=n,
        seed=seed,
        k=split.k,
        exclude=exclude,
        dataset_fingerprint=split.dataset_fingerprint,
        user_ids=split.cold.user_ids.gather(users),
        item_ids=split.item_ids,
    )


def _sha256(protocol: dict[str, Any], raw: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    add_json(digest, ["metatl candidates", FORMAT_VERSION, protocol])
    add_ids(digest, raw["user_id"])
    add_ids(digest, raw["target"])
    add_ids(digest, raw["negatives"].explode())
    return digest.hexdigest()


def _load(path: Path, split: ColdStartSplit) -> CandidateSets:
    protocol, raw = _read(path)
    if protocol["dataset_fingerprint"] != split.dataset_fingerprint:
        raise DataError(
            f"found candidates for the data {protocol['dataset_fingerprint'][:12]}, "
            f"expected {split.dataset_fingerprint[:12]} (fingerprints); sample them from these data"
        )
    if protocol["k"] != split.k:
        raise DataError(f"found candidates for K = {protocol['k']}, expected {split.k}")
    users = split.cold.find_users(raw["user_id"])
    if (users < 0).any():
        unknown = raw["user_id"][int(np.argmin(users))]
        raise DataError(
            f"found the user {unknown!r}, who is none of the split's; split as for the candidates"
        )
    targets = split.cold.find_items(raw["target"])
    negatives = split.cold.find_items(raw["negatives"].explode()).reshape(len(raw), protocol["n"])
    if (targets != split.targets(users)).any() or (negatives < 0).any():
        raise DataError("found targets or items that are not the split's; split as for the candidates")
    return CandidateSets(
        users=users,
        candidates=np.column_stack([targets, negatives]),
        user_ids=raw["user_id"],
        item_ids=split.item_ids,
        **protocol,
    )


def _read(path: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """Read a candidate file and check it against the SHA-256 that it holds."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("found no such file") from None
    damaged = "found a damaged candidate file ({}); sample the candidates again"
    try:
        metadata = pl.read_parquet_metadata(io.BytesIO(content))
        raw = pl.read_parquet(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(damaged.format(str(error).partition("\n")[0])) from None
    if _METADATA_KEY not in metadata:
        raise DataError("found a Parquet file without metadata of metatl, expected saved candidates")
    try:
        record = json.loads(metadata[_METADATA_KEY])
        if record["format_version"] != FORMAT_VERSION:
            raise DataError(f"found candidate format {record['format_version']}, expected {FORMAT_VERSION}")
        protocol = cast("dict[str, Any]", record["protocol"])
        is_sound = _sha256(protocol, raw) == record["sha256"]
    except (ValueError, KeyError, pl.exceptions.PolarsError):
        is_sound = False
    if not is_sound:
        raise DataError(damaged.format("its SHA-256 is not that of its content"))
    return protocol, raw
