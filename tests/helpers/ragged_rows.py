"""Histories of users from lists of items."""

from __future__ import annotations

import numpy as np

from metatl.data.histories import Histories


def ragged(rows):
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=indptr[1:])
    return Histories(indptr, np.array([item for row in rows for item in row], dtype=np.int64))
