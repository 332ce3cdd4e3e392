"""Negatives that a user's support meets: in training, and as `encode` and `adapt` are given them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from metatl.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor


def check_negatives(negatives: Tensor | None, users: int, count: int) -> Tensor:
    """Give the negatives back if they are (users, count).

    Raises
    ------
    InvalidArgumentError
        If they are not there or have another shape.
    """
    found = None if negatives is None else tuple(negatives.shape)
    if negatives is None or found != (users, count):
        raise InvalidArgumentError(f"negatives: found {found}, expected shape {(users, count)}")
    return negatives


def divide(negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the negatives of tasks whose support is of items: K of these, and the query.

    A task has K sets. The last is the query's alone: among items that the inner step has already pushed away,
    the query would be ranked too well. The K items share the others, and each gets as many as a set holds.

    Parameters
    ----------
    negatives : Tensor
        (B, K, n).

    Returns
    -------
    support : Tensor
        (B, K, n), dealt as `deal` does when a user is served; (B, 1, 0) for K = 1, where nothing is left.
    query : Tensor
        (B, n).
    """
    _, places, each = negatives.shape
    return deal(negatives[:, :-1].flatten(1), places, each), negatives[:, -1]


def deal(negatives: Tensor, places: int, each: int) -> Tensor:
    """Deal negatives to the places of a support in turn, from the first again where they do not suffice.

    Parameters
    ----------
    negatives : Tensor
        (B, N).
    places : int
        Items or pairs of the support.
    each : int
        Negatives that each of them gets.

    Returns
    -------
    Tensor
        (B, places, each); (B, places, 0) where there are none.
    """
    each = each if negatives.shape[1] else 0
    dealt = torch.arange(places * each, device=negatives.device) % max(1, negatives.shape[1])
    return negatives[:, dealt].view(len(negatives), places, each)
