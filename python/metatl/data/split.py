"""The cold-start split: users who arrive before a time T are for training, later users are new."""

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
from metatl.common.forks import refuse_forked_child
from metatl.data.fingerprints import add_array, add_json
from metatl.data.interactions import Interactions
from metatl.data.timestamps import from_date, to_datetime
from metatl.exceptions import DataError, EmptySplitError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import polars as pl
    from numpy.typing import NDArray

UnseenItems = Literal["drop", "keep"]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Users by their arrival, before K is used.

    Attributes
    ----------
    train : Interactions
        Rows before T of the users who arrived before T and have enough of them.
    newcomers : Interactions
        All rows of the users who arrived at or after T. It has the items of `train`.
    cutoff : int
        T in microseconds since 1970-01-01 UTC.
    filtered : Interactions
        All rows without those of rare items.
    dropped : dict of str to int
        Number of rows, items and users that were left out, by reason.
    """

    train: Interactions
    newcomers: Interactions
    cutoff: int
    filtered: Interactions
    dropped: dict[str, int]


@dataclass(frozen=True, eq=False, repr=False)
class ColdStartSplit:
    """Training users, and new users whose first K interactions a model sees.

    Attributes
    ----------
    k : int
        Number of interactions of a new user that a model sees, K.
    train : Interactions
        Rows before T of the users who arrived before T.
    cold : Interactions
        All rows of the users who arrived at or after T and have more than K rows. `train` and `cold`
        share their items: `train.item_ids is cold.item_ids`.
    validation, test : ndarray
        int64: the users of `cold` in each part, ascending.
    cutoff_timestamp : int
        T in microseconds since 1970-01-01 UTC.
    protocol : dict
        The arguments of the split, and T, as JSON can hold them.
    dropped : dict of str to int
        Number of rows, items and users that were left out, by reason.
    dataset_fingerprint : str
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
        """SHA-256 in hexadecimal of the parts of the split that models and metrics use."""
        digest = hashlib.sha256()
        add_json(digest, ["metatl split 1", self.k, self.cutoff_timestamp])
        add_json(digest, [self.train.fingerprint, self.cold.fingerprint])
        add_array(digest, self.validation)
        return digest.hexdigest()

    def histories(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first K items of new users, the oldest first.

        Parameters
        ----------
        users : ndarray
            int64 (B,): users of `cold`.

        Returns
        -------
        numpy.ndarray
            int64 (B, K).
        """
        return _first_items(self.cold, users, self.k)

    def targets(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the item after the history of each new user: the (K+1)-th.

        Parameters
        ----------
        users : ndarray
            int64 (B,): users of `cold`.

        Returns
        -------
        numpy.ndarray
            int64 (B,).
        """
        return self.cold.items[self.cold.indptr[users] + self.k]

    def train_histories(self) -> NDArray[np.int64]:
        """Return the first K items of the training users with at least K rows: int64 (V, K)."""
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
    """Split users into training users and new users by the time of their first interaction.

    This is the protocol of Sec. 4.1 of Wang et al. (2021), with every choice that the paper leaves open:

    1. Items with fewer than `min_item_count` rows are dropped, once, and then users without a row. All later
       steps, the quantile of the first interactions included, use the remaining rows.
    2. T is `cutoff`, or the `cutoff_quantile` of the first interactions of the users: of n sorted times, the
       one at index floor(quantile * (n - 1)), so that a user arrived at T.
    3. Training users arrived before T. Their rows at or after T are not used. Users with fewer than
       `min_train_rows` rows before T are not used.
    4. New users arrived at or after T and have more than K rows. If `unseen_items` is `drop`, their rows of
       items without a row in step 3 are dropped first, because a model has never seen these items. With
       `keep`, the items are those of step 1.
    5. A share of the new users, rounded to whole users, is for validation, and the others, at least one, for
       the test. The random order of the users is drawn over all users who arrived at or after T, before K is
       used, so that another K moves few users between the two parts.

    The result does not depend on the order of the rows, as long as the times of each user are distinct.

    Parameters
    ----------
    interactions : Interactions
        The interactions to split.
    k : int
        Number of interactions of a new user that a model sees, K >= 1.
    cutoff : datetime.date or datetime.datetime, optional
        T; a date is its midnight, and a time without a time zone is in UTC.
    cutoff_quantile : float
        T as a share of the users, in [0, 1]; ignored if `cutoff` is given.
    min_item_count : int
        Smallest number of rows of an item.
    min_train_rows : int
        Smallest number of rows before T of a training user.
    unseen_items : {"drop", "keep"}
        Whether rows of new users with items that no training user has are dropped or kept.
    validation_share : float
        Share of the new users for validation, in [0, 1).
    seed : int
        Seed of the choice of validation users.

    Returns
    -------
    ColdStartSplit
        The split.

    Raises
    ------
    InvalidArgumentError
        If an argument is outside its range.
    ArgumentTypeError
        If an argument has the wrong type.
    DataError
        If no item is left; the message says what to change.
    EmptySplitError
        If no training user or no new user is left; likewise.
    """
    check_type(
        "interactions", interactions, Interactions, "metatl.Interactions, as metatl.read_interactions gives"
    )
    refuse_forked_child()
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
        raise EmptySplitError(
            f"no user has {min_train_rows} interactions before T = {day}; choose a later cutoff, "
            "a larger cutoff_quantile or a smaller min_train_rows"
        )
    if newcomers.num_users == 0:
        raise EmptySplitError(
            f"no user with a known item arrives at or after T = {day}; choose an earlier cutoff or a "
            "smaller cutoff_quantile"
        )
    is_cold = newcomers.lengths > k
    if not is_cold.any():
        raise EmptySplitError(
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


def hold_nothing_out(interactions: Interactions, *, k: int, min_item_count: int = 10) -> ColdStartSplit:
    """Make a split whose training rows are all rows, for the fit of a system that is to be used.

    Items with fewer than `min_item_count` rows are dropped, and then users without a row. T is just after the
    last row, so there are no new users, and every user is a training user, with as many rows as there are.

    Parameters
    ----------
    interactions : Interactions
        The interactions of all users.
    k : int
        Number of interactions of a new user that a model sees, K >= 1.
    min_item_count : int
        Smallest number of rows of an item.

    Returns
    -------
    ColdStartSplit
        The split; `cold`, `validation` and `test` are empty.

    Raises
    ------
    InvalidArgumentError
        If an argument is outside its range.
    DataError
        If no item is left.
    """
    k = whole_number("k", k, 1)
    train = _frequent_items(interactions, whole_number("min_item_count", min_item_count, 1))
    cutoff = int(interactions.timestamps.max()) + 1
    nobody = np.empty(0, dtype=np.int64)
    return ColdStartSplit(
        k=k,
        train=train,
        cold=train.select_rows(np.zeros(train.num_interactions, dtype=bool)),
        validation=nobody,
        test=nobody,
        cutoff_timestamp=cutoff,
        protocol={"k": k, "cutoff": to_datetime(cutoff).isoformat(), "min_item_count": min_item_count},
        dropped={
            "rare items": interactions.num_items - train.num_items,
            "interactions with rare items": interactions.num_interactions - train.num_interactions,
            "users with rare items only": interactions.num_users - train.num_users,
        },
        dataset_fingerprint=interactions.fingerprint,
    )


def protocol_sha256(protocol: Mapping[str, Any]) -> str:
    """Digest the settings of a split, which distinguish splits of the same data.

    Parameters
    ----------
    protocol : mapping
        :attr:`ColdStartSplit.protocol`. It does not matter whether a cutoff was given or is a quantile.

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
    """Do steps 1 to 4 of :func:`cold_start_split` without the condition on K. The arguments are the same.

    Returns
    -------
    Arrivals
        The training users and the newcomers.

    Raises
    ------
    InvalidArgumentError
        If an argument is outside its range.
    DataError
        If no item is left.
    """
    if cutoff is not None:
        check_type("cutoff", cutoff, date, "a date or datetime")
    _check(0 <= cutoff_quantile <= 1, "cutoff_quantile", cutoff_quantile, "at least 0 and at most 1")
    _check(min_item_count >= 1, "min_item_count", min_item_count, "at least 1")
    _check(min_train_rows >= 1, "min_train_rows", min_train_rows, "at least 1")
    _check(unseen_items in ("drop", "keep"), "unseen_items", unseen_items, "'drop' or 'keep'")
    filtered = _frequent_items(interactions, min_item_count)
    if cutoff is None:
        first = np.sort(filtered.first_timestamps)
        timestamp = int(first[math.floor(cutoff_quantile * (len(first) - 1))])
    else:
        timestamp = from_date(cutoff)
    arrived_before = np.repeat(filtered.first_timestamps < timestamp, filtered.lengths)
    before = arrived_before & (filtered.timestamps < timestamp)
    # Every user has a row; for an empty range, `reduceat` would give the first value of the next user.
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


def _frequent_items(interactions: Interactions, min_item_count: int) -> Interactions:
    """Drop rare items, and then users without a row."""
    frequent = interactions.select_items(interactions.item_counts >= min_item_count)
    if frequent.num_items == 0:
        raise DataError(
            f"no item has {min_item_count} interactions, the most frequent has "
            f"{interactions.item_counts.max()}; choose a smaller min_item_count"
        )
    return frequent


def _first_items(interactions: Interactions, users: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the first `k` items of users with at least as many: int64 (B, k)."""
    items: NDArray[np.int64] = interactions.items[interactions.indptr[users][:, None] + np.arange(k)]
    return items


def _check(holds: bool, argument: str, value: object, expected: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"{argument}: found {value!r}, expected {expected}")
