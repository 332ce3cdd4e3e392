"""Users who have had every item, or almost: too few negatives are left for them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from metatl.exceptions import MetatlWarning, NoNegativeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions


def leave_out_full_users(
    interactions: Interactions, users: NDArray[np.int64], purpose: str, *, negatives: int = 1
) -> NDArray[np.int64]:
    """Leave out the users for whom fewer negatives are left than are drawn, with one warning.

    Parameters
    ----------
    interactions : Interactions
        The interactions of the users, and perhaps of others.
    users : ndarray
        int64 (B,): some of its users.
    purpose : str
        What they are left out of, for the message.
    negatives : int
        How many are drawn. With one, only users who have had every item are left out.

    Returns
    -------
    ndarray
        int64: the other users, in order.

    Raises
    ------
    NoNegativeError
        If there are users, and each of them has too few.

    Warns
    -----
    MetatlWarning
        If some have; it names the first and counts them.
    """
    num_items = interactions.num_items
    had = interactions.distinct_items[users]
    is_full = had > num_items - negatives
    full = users[is_full]
    if len(full) == 0:
        return users
    left = num_items - int(had[is_full][0])
    found = f"user {interactions.user_ids[int(full[0])]}: found "
    found += f"{num_items - left} of {num_items} items" if left else f"all {num_items} items"
    leaves = f"which leaves {f'{left} negatives of {negatives}' if left else 'no negative'}"
    if len(full) == len(users):
        raise NoNegativeError(
            f"{found}, as for each of the {len(users)} users for {purpose}, {leaves}; add users or items"
        )
    warnings.warn(
        f"{found}, {leaves}; left out of {purpose}: {len(full)} of {len(users)} users",
        MetatlWarning,
        stacklevel=2,
    )
    others: NDArray[np.int64] = users[~is_full]
    return others
