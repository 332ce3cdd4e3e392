"""The cold-start split: users who arrive before a date T train, users who arrive at or after it are new."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from metatl._metatl import random_order
from metatl.common.arguments import check_type, whole_number
from metatl.data.fingerprints import add_array, add_json
from metatl.data.interactions import Interactions
from metatl.data.timestamps import from_date, to_datetime
from metatl.exceptions import DataError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import polars as pl
    from numpy.typing import NDArray

UnseenItems = Literal["drop", "keep"]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Users parted by their arrival, before K is known.

    Attributes
    ----------
    train
        Rows before the cutoff of the users who arrived before it, where they are enough.
    newcomers
        All rows of the users who arrived at or after the cutoff, however few. It has the items of `train`.
    cutoff
        T in microseconds since 1970-01-01 UTC.
    filtered
        Everything but the rare items.
    dropped
        What was left out on the way, by reason: counts.
    """

    train: Interactions
    newcomers: Interactions
    cutoff: int
    filtered: Interactions
    dropped: dict[str, int]


@dataclass(frozen=True, eq=False, repr=False)
class ColdStartSplit:
    """Training users, and new users of whom a model sees the first K interactions.

    Attributes
    ----------
    k
        Interactions of a new user that a model sees, K.
    train
        Rows before T of the users who arrived before it.
    cold
        All rows of the users who arrived at or after T and have more than K rows. `train` and `cold`
        share their items: `train.item_ids is cold.item_ids`.
    validation, test
        int64: the users of `cold` in either part, ascending.
    cutoff_timestamp
        T in microseconds since 1970-01-01 UTC.
    protocol
        The arguments that the split was made with, and T, as JSON can hold them.
    dropped
        What was left out, by reason: counts.
    dataset_fingerprint
        Fingerprint of the interactions that were split.
    """

    k: int
    train: Interactions
    cold: Interactions
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    cutoff_timestamp: int
    protocol: dict[str, Any]
    dropped: dict[str, int]
    dataset_fingerprint: str

    @property
    def item_ids(self) -> pl.Series:
        """Raw ids (I,) of the items that training and new users share."""
        return self.train.item_ids

    @property
    def num_items(self) -> int:
        """Number of items, I."""
        return self.train.num_items

    @property
    def cutoff(self) -> datetime:
        """T, in UTC."""
        return to_datetime(self.cutoff_timestamp)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of all that a model or a metric can see of the split."""
        digest = hashlib.sha256()
        add_json(digest, ["metatl split 1", self.k, self.cutoff_timestamp])
        add_json(digest, [self.train.fingerprint, self.cold.fingerprint])
        add_array(digest, self.validation)
        return digest.hexdigest()

    def histories(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """First K items of new users, the oldest first.

        Parameters
        ----------
        users
            int64 (B,): users of `cold`.

        Returns
        -------
        numpy.ndarray
            int64 (B, K).
        """
        return _first_items(self.cold, users, self.k)

    def targets(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Item that follows the history of each new user: the (K+1)-th.

        Parameters
        ----------
        users
            int64 (B,): users of `cold`.

        Returns
        -------
        numpy.ndarray
            int64 (B,).
        """
        return self.cold.items[self.cold.indptr[users] + self.k]

    def train_histories(self) -> NDArray[np.int64]:
        """First K items of the training users with K rows or more: int64 (V, K)."""
        users = np.flatnonzero(self.train.lengths >= self.k)
        return _first_items(self.train, users, self.k)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __repr__(self) -> str:
        return (
            f"ColdStartSplit(k={self.k}, cutoff={self.cutoff:%Y-%m-%d}, train users={self.train.num_users}, "
            f"validation users={len(self.validation)}, test users={len(self.test)}, items={self.num_items})"
        )


def cold_start_split(
    interactions: Interactions,
    *,
    k: int,
    cutoff: date | None = None,
    cutoff_quantile: float = 0.75,
    min_item_count: int = 10,
    min_train_rows: int = 5,
    unseen_items: UnseenItems = "drop",
    validation_share: float = 0.3,
    seed: int = 0,
) -> ColdStartSplit:
    """Split users into training users and new ones by the date of their first interaction.

    The protocol of Sec. 4.1 of Wang et al. (2021), with every choice that the paper leaves open made
    here:

    1. Items with fewer than `min_item_count` rows are dropped, once; users without a row go with them.
       What follows, first interactions and their quantile included, looks at what is left.
    2. T is `cutoff`, or the `cutoff_quantile` of the users' first interactions: with n of them sorted,
       the one at position floor(quantile * (n - 1)), so that T is a time at which somebody arrived.
    3. Training users arrived before T. Their rows at or after T are not used, and users with fewer than
       `min_train_rows` rows before T are not used.
    4. New users arrived at or after T. Their rows of items that no row of step 3 has (the unused users do
       not count: a model never saw those items) are dropped, if `unseen_items` is `drop`; with `keep` the
       items are all those that step 1 kept. Users with more than K rows left are the new users.
    5. A share of them, rounded to whole users, is for validation, the rest for the test; at least one
       stays for the test. The order in which users are taken is drawn over all users who arrived at or
       after T, before K is looked at, so that another K moves few users between the two.

    Nothing here depends on the order of the rows that the interactions were made from, as long as a
    user's times are distinct.

    Parameters
    ----------
    interactions
        What to split.
    k
        Interactions of a new user that a model sees, K >= 1.
    cutoff
        T as a date (its midnight) or a datetime, UTC unless it says otherwise.
    cutoff_quantile
        T as a share of users, in [0, 1]; not looked at where `cutoff` is given.
    min_item_count
        Rows that an item must have.
    min_train_rows
        Rows before T that a training user must have.
    unseen_items
        `drop` or `keep`.
    validation_share
        Share of the new users, in [0, 1).
    seed
        Seed of the choice of validation users.

    Raises
    ------
    InvalidArgumentError
        For an argument outside its range.
    DataError
        If no item, no training user or no new user is left; it says what to change.
    """
    check_type(
        "interactions", interactions, Interactions, "metatl.Interactions, as metatl.read_interactions gives"
    )
    k = whole_number("k", k, 1)
    min_item_count = whole_number("min_item_count", min_item_count, 1)
    min_train_rows = whole_number("min_train_rows", min_train_rows, 1)
    _check(0 <= validation_share < 1, "validation_share", validation_share, "at least 0 and below 1")
    arrivals = part_by_arrival(
        interactions,
        cutoff=cutoff,
        cutoff_quantile=cutoff_quantile,
        min_item_count=min_item_count,
        min_train_rows=min_train_rows,
        unseen_items=unseen_items,
    )
    newcomers = arrivals.newcomers
    day = f"{to_datetime(arrivals.cutoff):%Y-%m-%d}"
    if arrivals.train.num_users == 0:
        raise DataError(
            f"no user has {min_train_rows} interactions before T = {day}; choose a later cutoff, "
            "a larger cutoff_quantile or a smaller min_train_rows"
        )
    if newcomers.num_users == 0:
        raise DataError(
            f"no user with a known item arrives at or after T = {day}; choose an earlier cutoff or a "
            "smaller cutoff_quantile"
        )
    is_cold = newcomers.lengths > k
    if not is_cold.any():
        raise DataError(
            f"none of the {newcomers.num_users} users who arrive at or after T = {day} has more than "
            f"k = {k} interactions, the longest has {newcomers.lengths.max()}; choose a smaller k or an "
            "earlier cutoff"
        )
    cold = newcomers.select_rows(np.repeat(is_cold, newcomers.lengths))
    numbers = np.cumsum(is_cold) - 1
    order = random_order(newcomers.num_users, seed=seed)
    cold_order = numbers[order[is_cold[order]]]
    num_validation = min(round(validation_share * cold.num_users), cold.num_users - 1)
    return ColdStartSplit(
        k=k,
        train=arrivals.train,
        cold=cold,
        validation=np.sort(cold_order[:num_validation]),
        test=np.sort(cold_order[num_validation:]),
        cutoff_timestamp=arrivals.cutoff,
        protocol={
            "k": k,
            "cutoff": to_datetime(arrivals.cutoff).isoformat(),
            "cutoff_quantile": cutoff_quantile if cutoff is None else None,
            "min_item_count": min_item_count,
            "min_train_rows": min_train_rows,
            "unseen_items": unseen_items,
            "validation_share": validation_share,
            "seed": seed,
        },
        dropped={**arrivals.dropped, "new users with too few rows": newcomers.num_users - cold.num_users},
        dataset_fingerprint=interactions.fingerprint,
    )


def protocol_sha256(protocol: Mapping[str, Any]) -> str:
    """Digest what a split was made with, so that two splits of the same data can be told apart.

    Parameters
    ----------
    protocol
        :attr:`ColdStartSplit.protocol`. A cutoff that was given and one that a quantile gave are the same.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    add_json(digest, {name: value for name, value in protocol.items() if name != "cutoff_quantile"})
    return digest.hexdigest()


def part_by_arrival(
    interactions: Interactions,
    *,
    cutoff: date | None = None,
    cutoff_quantile: float = 0.75,
    min_item_count: int = 10,
    min_train_rows: int = 5,
    unseen_items: UnseenItems = "drop",
) -> Arrivals:
    """Take steps 1 to 4 of :func:`cold_start_split`, but for the limit on K; the arguments are the same.

    Raises
    ------
    InvalidArgumentError
        For an argument outside its range.
    DataError
        If no item is left.
    """
    if cutoff is not None:
        check_type("cutoff", cutoff, date, "a date or datetime")
    _check(0 <= cutoff_quantile <= 1, "cutoff_quantile", cutoff_quantile, "at least 0 and at most 1")
    _check(min_item_count >= 1, "min_item_count", min_item_count, "at least 1")
    _check(min_train_rows >= 1, "min_train_rows", min_train_rows, "at least 1")
    _check(unseen_items in ("drop", "keep"), "unseen_items", unseen_items, "'drop' or 'keep'")
    filtered = interactions.select_items(interactions.item_counts >= min_item_count)
    if filtered.num_items == 0:
        raise DataError(
            f"no item has {min_item_count} interactions, the most frequent has "
            f"{interactions.item_counts.max()}; choose a smaller min_item_count"
        )
    if cutoff is None:
        first = np.sort(filtered.first_timestamps)
        timestamp = int(first[math.floor(cutoff_quantile * (len(first) - 1))])
    else:
        timestamp = from_date(cutoff)
    arrived_before = np.repeat(filtered.first_timestamps < timestamp, filtered.lengths)
    before = arrived_before & (filtered.timestamps < timestamp)
    # Every user has a row: `reduceat` would give the next user's for one without.
    enough = np.add.reduceat(before, filtered.indptr[:-1], dtype=np.int64) >= min_train_rows
    train_rows = before & np.repeat(enough, filtered.lengths)
    if unseen_items == "drop":
        is_known = np.bincount(filtered.items[train_rows], minlength=filtered.num_items) > 0
    else:
        is_known = np.ones(filtered.num_items, dtype=bool)
    rows = is_known[filtered.items]
    train = filtered.select_rows(train_rows).select_items(is_known)
    newcomers = filtered.select_rows(~arrived_before & rows).select_items(is_known)
    newcomers = replace(newcomers, item_ids=train.item_ids)
    users_before = int((filtered.first_timestamps < timestamp).sum())
    return Arrivals(
        train=train,
        newcomers=newcomers,
        cutoff=timestamp,
        filtered=filtered,
        dropped={
            "rare items": interactions.num_items - filtered.num_items,
            "interactions with rare items": interactions.num_interactions - filtered.num_interactions,
            "users with rare items only": interactions.num_users - filtered.num_users,
            "interactions of training users after the cutoff": int((arrived_before & ~before).sum()),
            "training users with too few rows": users_before - train.num_users,
            "items unseen in training": filtered.num_items - train.num_items,
            "interactions of new users with unseen items": int((~arrived_before & ~rows).sum()),
            "new users with unseen items only": filtered.num_users - users_before - newcomers.num_users,
        },
    )


def _first_items(interactions: Interactions, users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """First `k` items of users who have as many: int64 (B, k)."""
    items: NDArray[np.int64] = interactions.items[interactions.indptr[users][:, None] + np.arange(k)]
    return items


def _check(holds: bool, argument: str, found: object, expected: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"{argument}: found {found!r}, expected {expected}")
