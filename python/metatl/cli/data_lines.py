"""Lines that say what data a command read, so that swapped columns, a bot or repeats are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metatl.data.interactions import Interactions


def rows_read(interactions: Interactions) -> str:
    """Say how many rows were read, and how many of them are not used."""
    source = interactions.source
    if source is None:
        return f"{interactions.num_interactions:,}"
    dropped = [
        f"{count:,} {reason if reason != 'repeats' else 'repeats of an item by its user'} "
        f"({count / source.num_rows:.1%})"
        for reason, count in source.dropped.items()
    ]
    return f"{source.num_rows:,} read, dropped: {', '.join(dropped) or 'none'}"


def largest_user(interactions: Interactions) -> str:
    """Name the user with the most rows, and its share of all rows."""
    source = interactions.source
    if source is None:
        return "unknown"
    share = source.largest_user_rows / source.num_rows
    return f"{source.largest_user!r} with {source.largest_user_rows:,} rows ({share:.1%})"
