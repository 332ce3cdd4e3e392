"""Rank each user's target, block by block, among its candidates and among all items."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metatl.ranking.blocks import RankCounts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metatl.common.timings import Timings
    from metatl.data.histories import Histories
    from metatl.ranking.blocks import Block
    from metatl.ranking.encoders import Rows


class UserRanks(NamedTuple):
    """The ranks and the lists of B users.

    Attributes
    ----------
    sampled : RankCounts or None
        Among the candidates; None where there are no candidates.
    full : RankCounts
        Among all items.
    lists : ndarray or None
        (B, N) int64: the best items of each user that are not in the history; -1 where there are no more
        items. None where no lists were asked for.
    """

    sampled: RankCounts | None
    full: RankCounts
    lists: np.ndarray | None


def rank_blocks(
    blocks: Iterable[tuple[Rows, Block]],
    *,
    targets: np.ndarray,
    candidates: np.ndarray | None,
    own_items: Histories,
    histories: Histories,
    top: int,
    timings: Timings,
) -> UserRanks:
    """Rank the users of all blocks.

    Parameters
    ----------
    blocks : iterable of (ndarray or slice, Block)
        The rows (b,) int64 of some of the B users, or consecutive ones, and the block that ranks them. Each
        user is in one block.
    targets : ndarray
        (B,) int64, the item that each user chose next.
    candidates : ndarray or None
        (B, 1 + n) int64, the target in column 0; None to rank among all items only.
    own_items : Histories
        B rows: the items that do not count when the target is ranked among all items. The target itself
        counts even if it is one of them.
    histories : Histories
        B rows: the items that are not in the lists.
    top : int
        N, the length of the lists; 0 for no lists.
    timings : Timings
        Gains the stage ``lists``.

    Returns
    -------
    UserRanks
        One entry per user.
    """
    users = len(targets)
    sampled = None if candidates is None else RankCounts.empty(users)
    full = RankCounts.empty(users)
    lists = np.empty((users, top), np.int64) if top else None
    for rows, block in blocks:
        if sampled is not None and candidates is not None:
            sampled.greater[rows], sampled.equal[rows] = block.rank_candidates(candidates[rows])
        full.greater[rows], full.equal[rows] = block.rank_catalogue(targets[rows], own_items.select(rows))
        if lists is not None:
            with timings.stage("lists"):
                lists[rows] = block.top_n(top, histories.select(rows)).items
    return UserRanks(sampled, full, lists)
