"""Negatives that a user's support meets when the user is served, as `encode` and `adapt` are given them."""

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
        (B, places, each).
    """
    dealt = torch.arange(places * each, device=negatives.device) % max(1, negatives.shape[1])
    return negatives[:, dealt].view(-1, places, each)
