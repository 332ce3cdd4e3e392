"""The memory that this process may use, and the memory that it keeps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

# The limit of a container under Linux: control groups of version 2, then of version 1.
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_LARGEST_KEPT = 33_000_000  # bytes, a little less than 32 MiB: glibc's limit counts its own header


def memory_bytes() -> int:
    """Return the memory of the machine, or the limit of the container if it is smaller, in bytes."""
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
    """Make the allocator keep freed memory, up to 64 MiB, for the next allocation.

    A training step, or the encoding of a block of users, allocates and frees some hundred megabytes in
    pieces. glibc returns pieces above a threshold to the system, which then clears each page again on its
    first use; this takes a fifth of the step. The threshold is raised to the size of the largest piece that
    was freed, up to 32 MiB (mallopt(3)). Other allocators ignore this call.
    """
    np.empty(_LARGEST_KEPT, dtype=np.uint8)
