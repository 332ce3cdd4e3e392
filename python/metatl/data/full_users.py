"""Users who have had every item: no negative is left for them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from metatl.exceptions import MetatlWarning, NoNegativeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions


def leave_out_full_users(
    interactions: Interactions, users: NDArray[np.int64], purpose: str
) -> NDArray[np.int64]:
    """Leave out the users who have had every item, with one warning.

    Parameters
    ----------
    interactions : Interactions
        The interactions of the users, and perhaps of others.
    users : ndarray
        int64 (B,): some of its users.
    purpose : str
        What they are left out of, for the message.

    Returns
    -------
    ndarray
        int64: the other users, in order.

    Raises
    ------
    NoNegativeError
        If there are users, and each of them has had every item.

    Warns
    -----
    MetatlWarning
        If some have; it names the first and counts them.
    """
    is_full = interactions.distinct_items[users] == interactions.num_items
    full = users[is_full]
    if len(full) == 0:
        return users
    found = f"user {interactions.user_ids[int(full[0])]}: found all {interactions.num_items} items"
    if len(full) == len(users):
        raise NoNegativeError(
            f"{found}, as for each of the {len(users)} users for {purpose}, which leaves no negative; "
            "add users or items"
        )
    warnings.warn(
        f"{found}, which leaves no negative; left out of {purpose}: {len(full)} of {len(users)} users",
        MetatlWarning,
        stacklevel=2,
    )
    others: NDArray[np.int64] = users[~is_full]
    return others
