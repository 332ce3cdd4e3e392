"""Negatives of the support set: those of training tasks, and those passed to `encode` and `adapt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from metatl.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor


def check_negatives(negatives: Tensor | None, users: int, count: int) -> Tensor:
    """Return the negatives if their shape is (users, count).

    Parameters
    ----------
    negatives : Tensor or None
        Int64 item ids.
    users, count : int
        Expected number of users, and of negatives per user.

    Raises
    ------
    InvalidArgumentError
        If they are None or have another shape.
    """
    shape = None if negatives is None else tuple(negatives.shape)
    if negatives is None or shape != (users, count):
        raise InvalidArgumentError(f"negatives: found {shape}, expected shape {(users, count)}")
    return negatives


def divide(negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the negatives of tasks between the K items of the support set and the query.

    A task has K sets of n negatives. The query uses the last set, and only the query does: against negatives
    that the inner step has already pushed away, the query would rank too well. The K items share the other
    sets; each item gets n negatives.

    Parameters
    ----------
    negatives : Tensor
        (B, K, n) int64.

    Returns
    -------
    support : Tensor
        (B, K, n) int64, distributed by `deal`, as for a user at serving time; (B, 1, 0) for K = 1, because
        the only set is the query's.
    query : Tensor
        (B, n) int64.
    """
    _, items, each = negatives.shape
    return deal(negatives[:, :-1].flatten(1), items, each), negatives[:, -1]


def deal(negatives: Tensor, slots: int, each: int) -> Tensor:
    """Distribute negatives to the slots of a support set in order, and repeat them if there are too few.

    Parameters
    ----------
    negatives : Tensor
        (B, N) int64.
    slots : int
        Number of items or pairs of the support set.
    each : int
        Negatives per slot.

    Returns
    -------
    Tensor
        (B, slots, each) int64; (B, slots, 0) if N = 0.
    """
    each = each if negatives.shape[1] else 0
    columns = torch.arange(slots * each, device=negatives.device) % max(1, negatives.shape[1])
    return negatives[:, columns].view(negatives.shape[0], slots, each)
