"""Refusing to work in a forked child, where the thread pool of polars would wait for ever.

A child that :func:`os.fork` makes has a copy of the pool's locks and none of its threads: the first operation
on a table hangs. A child that is spawned has a pool of its own.
"""

from __future__ import annotations

import os
import sys

from metatl.exceptions import ForkError

_process = {"forked_with_polars": False}


def _after_fork() -> None:
    _process["forked_with_polars"] = "polars" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def refuse_forked_child() -> None:
    """Raise where this process was forked from one that had loaded polars.

    Raises
    ------
    ForkError
        In such a process.
    """
    if _process["forked_with_polars"]:
        raise ForkError(
            "found a process that was forked after polars was loaded, in which tables cannot be read; "
            "start it with the method 'spawn' or 'forkserver': multiprocessing.get_context('spawn')"
        )
