"""Memory of this process: how much it may use, and what it keeps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

# Where Linux keeps the limit of a container: control groups in their second version, then in their first.
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_LARGEST_KEPT = 33_000_000  # bytes, a little less than 32 MiB: glibc's limit counts its own header


def memory_bytes() -> int:
    """Give the memory of the machine, or the limit of the container if that is less, in bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMIT_FILES:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, up to 64 MiB, for what it takes next.

    A training step, or a block of users that is encoded, takes and frees some hundred megabytes in pieces.
    glibc gives pieces above a threshold back to the system, which hands out cleared pages again, one fault at
    a time: a fifth of the step. The threshold follows the largest such piece that was freed, up to 32 MiB
    (mallopt(3)); other allocators take no notice.
    """
    np.empty(_LARGEST_KEPT, dtype=np.uint8)
