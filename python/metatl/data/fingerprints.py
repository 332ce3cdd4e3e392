"""The bytes of a fingerprint: the same content has the same SHA-256 on every machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray


# A text takes about eighty bytes in Python: a hundred million at once do not fit into most machines.
_TEXTS_AT_ONCE = 1 << 20


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def add_array(digest: _Digest, array: NDArray[np.int64]) -> None:
    """Add the shape and the little-endian values of an int64 array."""
    add_json(digest, list(array.shape))
    digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())


def add_ids(digest: _Digest, ids: pl.Series) -> None:
    """Add raw ids: integers by their values, texts by their lengths and their UTF-8 bytes."""
    if ids.dtype == pl.Int64:
        add_json(digest, "integers")
        add_array(digest, ids.to_numpy())
        return
    add_json(digest, "text")
    add_array(digest, ids.str.len_bytes().cast(pl.Int64).to_numpy())
    for start in range(0, len(ids), _TEXTS_AT_ONCE):
        digest.update("".join(ids.slice(start, _TEXTS_AT_ONCE).to_list()).encode())


def add_json(digest: _Digest, value: Any) -> None:
    """Add a value as JSON with sorted keys."""
    digest.update(json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n")
