"""Checkpoints: tensors and a JSON record in one safetensors file, written atomically.

One file, so that no crash can leave tensors of one step beside the record of another. Nothing is
ever unpickled. The record holds a SHA-256 of the tensors, so that a damaged file is told from a
sound one even where its header still parses.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from metatl.common.files import replace_file
from metatl.exceptions import MissingRunError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT_VERSION = 1


def _digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, NDArray[Any]], record: Mapping[str, Any]) -> None:
    """Write tensors and their record to `path`, or leave what was there untouched.

    Parameters
    ----------
    path
        File to write; replaced in one step if it exists.
    tensors
        Arrays by name.
    record
        What JSON can hold: the step, the history, the model's settings.

    Raises
    ------
    OSError
        If the file cannot be written, for example on a full disk.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    metadata = {
        "format": "metatl",
        "format_version": str(FORMAT_VERSION),
        "sha256": _digest(arrays),
        "record": json.dumps(record, sort_keys=True),
    }
    content = _in_order(safetensors.numpy.save(arrays, metadata=metadata))
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def _in_order(content: bytes) -> bytes:
    """Sort the header of a safetensors file, whose metadata come in an order that changes by process.

    A header is JSON, filled up with spaces to a multiple of 8 bytes, after its length in 8 bytes.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def load_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote.

    Returns
    -------
    tensors, record
        Arrays by name, and the JSON record.

    Raises
    ------
    RunError
        If the file is missing, damaged, or of another format version.
    """
    if path.is_dir():
        raise RunError(f"{path}: found a folder, expected a checkpoint; remove it and train again")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "metatl":
                raise RunError(f"{path}: found a safetensors file that metatl did not write")
            version = metadata.get("format_version")
            if version != str(FORMAT_VERSION):
                raise RunError(
                    f"{path}: found checkpoint format {version}, expected {FORMAT_VERSION}; "
                    "train again, or use the metatl version that wrote it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise MissingRunError(f"{path}: found no such checkpoint", file=str(path)) from None
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read ({error})") from None
    except (SafetensorError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error}); train again") from None
    if metadata.get("sha256") != _digest(tensors):
        raise RunError(f"{path}: the checkpoint is damaged (its SHA-256 differs); train again")
    record: dict[str, Any] = json.loads(metadata["record"])
    return tensors, record
