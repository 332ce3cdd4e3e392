"""Checkpoints: tensors and a JSON record in one safetensors file, written atomically.

One file, so that no crash can leave tensors of one step beside the record of another. Nothing is
ever unpickled. The record holds a SHA-256 of the tensors, so that a damaged file is told from a
sound one even where its header still parses.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from metatl.common.files import replace_file, write_json
from metatl.exceptions import MissingRunError, RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from metatl.models.trainable import TrainableModel

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


@dataclass
class TrainingState:
    """What the loop knows beside tensors; it travels in the checkpoint's record."""

    step: int = 0
    loss_sum: float = 0.0
    """Sum of the losses since the last evaluation."""
    best_step: int = 0
    best_mrr: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    """At each evaluation: step, mean loss since the last one, and the validation metrics."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from a file."""

    tensors: dict[str, NDArray[Any]]
    record: dict[str, Any]


@dataclass(frozen=True)
class CheckpointFiles:
    """The files that the outer loop keeps in a run directory."""

    directory: Path

    def save_last(self, tensors: dict[str, NDArray[Any]], state: TrainingState) -> None:
        """Write the state that `--resume` continues from."""
        save_checkpoint(self.directory / "last.safetensors", tensors, asdict(state))
        write_json(self.directory / "history.json", state.history)

    def load_last(self) -> Checkpoint | None:
        """Read the last state; None where the run was stopped before it wrote one."""
        path = self.directory / "last.safetensors"
        return Checkpoint(*load_checkpoint(path)) if path.exists() else None

    def save_best(self, weights: dict[str, NDArray[Any]], state: TrainingState) -> None:
        """Write the weights with the best validation MRR."""
        save_checkpoint(self.directory / "best.safetensors", weights, state.history[-1])

    def load_best(self) -> dict[str, NDArray[Any]]:
        """Read the weights with the best validation MRR."""
        weights, _ = load_checkpoint(self.directory / "best.safetensors")
        return weights


def training_tensors(model: TrainableModel, optimizer: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Collect every tensor that the next step depends on: weights, optimiser state, generators."""
    import torch

    tensors = {f"model.{name}": array for name, array in model.tensors().items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().numpy()
    tensors["generator.cpu"] = torch.get_rng_state().numpy()
    if model.device.type == "cuda":
        tensors["generator.cuda"] = torch.cuda.get_rng_state(model.device).numpy()
    return tensors


def restore(
    tensors: dict[str, NDArray[Any]], model: TrainableModel, optimizer: torch.optim.Optimizer
) -> None:
    """Put back what :func:`training_tensors` collected."""
    import torch

    weights: dict[str, NDArray[Any]] = {}
    optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = array
        elif kind == "optimizer":
            index, _, key = rest.partition(".")
            optimizer_state.setdefault(int(index), {})[key] = torch.from_numpy(array)
    model.load_tensors(weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
    torch.set_rng_state(torch.from_numpy(tensors["generator.cpu"]))
    if "generator.cuda" in tensors and model.device.type == "cuda":
        torch.cuda.set_rng_state(torch.from_numpy(tensors["generator.cuda"]), model.device)
