"""Checkpoints: tensors and a JSON record in one safetensors file, written atomically.

Tensors and record share one file, so a crash cannot leave tensors of one step beside the record of another.
Loading never unpickles. The file's metadata hold a SHA-256 of the tensors and the record, which detects
damage even if the header still parses. In format 1, which metatl 0.1.0 wrote, it covers the tensors only.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass
from safetensors import safe_open

from metatl.common.files import replace_file, write_json
from metatl.exceptions import MissingRunError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from metatl.models.trainable import TrainableModel

FORMAT_VERSION = 2


def _digest(tensors: Mapping[str, NDArray[Any]], record: str | None) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    if record is not None:
        digest.update(f"record {record}".encode())
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Digest tensors: names, types, shapes and values; returns a SHA-256 in hexadecimal."""
    return _digest(tensors, None)


def save_checkpoint(path: Path, tensors: Mapping[str, NDArray[Any]], record: Mapping[str, Any]) -> None:
    """Write tensors and their record atomically: after an error, an existing file is unchanged.

    Parameters
    ----------
    path : Path
        File to write; an existing one is replaced.
    tensors : mapping of str to ndarray
        Arrays of any shape and dtype, by name.
    record : mapping of str to object
        JSON values, such as the step and the history.

    Raises
    ------
    OSError
        If the file cannot be written, for example on a full disk.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps(record, sort_keys=True)
    metadata = {
        "format": "metatl",
        "format_version": str(FORMAT_VERSION),
        "sha256": _digest(arrays, text),
        "record": text,
    }
    content = _sort_header(safetensors.numpy.save(arrays, metadata=metadata))
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def _sort_header(content: bytes) -> bytes:
    """Sort the header of a safetensors file: the order of its metadata differs between processes.

    The file starts with the length of the header in 8 bytes. The header is JSON, padded with spaces to a
    multiple of 8 bytes.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def load_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a file that :func:`save_checkpoint` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tensors : dict of str to ndarray
        Arrays by name.
    record : dict of str to object
        The JSON record.

    Raises
    ------
    RunError
        If the file is missing, damaged, or of another format version.
    """
    if path.is_dir():
        raise RunError(f"{path}: found a folder, expected a checkpoint; remove it and train again")
    with _damage_named(path):
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "metatl":
                raise RunError(f"{path}: found a safetensors file that metatl did not write")
            version = metadata.get("format_version")
            if version not in ("1", str(FORMAT_VERSION)):
                raise RunError(
                    f"{path}: found checkpoint format {version}, expected {FORMAT_VERSION}; "
                    "train again, or use the metatl version that wrote it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        text = metadata["record"]
        if metadata.get("sha256") != _digest(tensors, None if version == "1" else text):
            raise RunError(f"{path}: the checkpoint is damaged (its SHA-256 differs); train again")
        return tensors, _RECORD.validate_json(text)


_RECORD: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise for a damaged file into an error of one line."""
    try:
        yield
    except (RunError, MemoryError):
        raise
    except FileNotFoundError:
        raise MissingRunError(f"{path}: found no such checkpoint", file=str(path)) from None
    except OSError as error:
        raise RunError(f"{path}: the checkpoint cannot be read ({error})") from None
    except Exception as error:  # noqa: BLE001 (safetensors, numpy, JSON and pydantic have many types)
        raise _damaged(path, error) from None
    except BaseException as error:
        # A panic of a Rust library is no Exception; its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise _damaged(path, error) from None


def _damaged(path: Path, error: BaseException) -> RunError:
    reason = (str(error).splitlines() or [""])[0]
    return RunError(f"{path}: the checkpoint is damaged ({type(error).__name__}: {reason:.200}); train again")


@checked_dataclass(config={"extra": "forbid"})
class TrainingState:
    """State of the outer loop apart from tensors: the record of its checkpoint.

    Attributes
    ----------
    step : int
        Steps that are done.
    first_step : int
        Step that the training began with: above 0 if it went on from the weights of another run.
    loss_sum : float
        Sum of the losses since the last evaluation.
    best_step : int
        Step of the best validation MRR; 0 before the first evaluation.
    best_mrr : float
        The best validation MRR; -inf before the first evaluation.
    history : list of dict of str to float
        For each evaluation: step, learning rate, mean loss since the previous evaluation, and the validation
        metrics.
    """

    step: int = Field(default=0, ge=0)
    first_step: int = Field(default=0, ge=0)
    loss_sum: float = 0.0
    best_step: int = Field(default=0, ge=0)
    best_mrr: float = -math.inf
    history: list[dict[str, int | float]] = Field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the outer loop as read from a file.

    Attributes
    ----------
    path : Path
        The file.
    tensors : dict of str to ndarray
        What :func:`training_tensors` returned.
    state : TrainingState
        The state of the outer loop.
    """

    path: Path
    tensors: dict[str, NDArray[Any]]
    state: TrainingState

    def restore(self, model: TrainableModel, optimizer: torch.optim.Optimizer) -> None:
        """Restore weights, optimiser state and random generators.

        Parameters
        ----------
        model : TrainableModel
            The model, changed in place.
        optimizer : torch.optim.Optimizer
            The optimiser, changed in place.

        Raises
        ------
        RunError
            If the names or shapes of the tensors are not those of the model.
        """
        with _damage_named(self.path):
            _restore(self.tensors, model, optimizer)


@dataclass(frozen=True)
class CheckpointFiles:
    """The checkpoints that the outer loop writes to a run directory.

    Attributes
    ----------
    directory : Path
        The run directory.
    prefix : str
        Start of the names of the files; ``split-`` for those of a training that only chooses the steps.
    """

    directory: Path
    prefix: str = ""

    def _path(self, name: str) -> Path:
        return self.directory / f"{self.prefix}{name}"

    def save_last(self, tensors: dict[str, NDArray[Any]], state: TrainingState) -> None:
        """Write the state that `--resume` continues from, and `history.json`.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        save_checkpoint(self._path("last.safetensors"), tensors, asdict(state))
        self._write_history(state)

    def _write_history(self, state: TrainingState) -> None:
        write_json(self._path("history.json"), state.history)

    def load_last(self) -> Checkpoint | None:
        """Read the last state; None if the run stopped before its first checkpoint.

        `history.json` is written again: the run may have been killed between the two files.

        Raises
        ------
        RunError
            If the file is damaged, or of another format version.
        OSError
            If `history.json` cannot be written.
        """
        path = self._path("last.safetensors")
        if not path.exists():
            return None
        tensors, record = load_checkpoint(path)
        with _damage_named(path):
            state = TrainingState(**record)
        self._write_history(state)
        return Checkpoint(path, tensors, state)

    def save_best(self, weights: dict[str, NDArray[Any]], state: TrainingState) -> None:
        """Write the weights with the best validation MRR, with their metrics as the record.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        save_checkpoint(self._path("best.safetensors"), weights, state.history[-1])

    def load_best(self) -> dict[str, NDArray[Any]]:
        """Read the weights with the best validation MRR.

        Raises
        ------
        RunError
            If the file is missing, damaged, or of another format version.
        """
        weights, _ = load_checkpoint(self._path("best.safetensors"))
        return weights

    def remove_weights(self) -> None:
        """Remove both checkpoints; the history stays."""
        for name in ("last.safetensors", "best.safetensors"):
            self._path(name).unlink(missing_ok=True)


def training_tensors(model: TrainableModel, optimizer: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """Collect every tensor that the next step depends on.

    Parameters
    ----------
    model : TrainableModel
        Gives ``model.<name>``.
    optimizer : torch.optim.Optimizer
        Gives ``optimizer.<index of the parameter>.<name>``.

    Returns
    -------
    dict of str to ndarray
        These tensors, and the states of torch's random generators, uint8, as ``generator.cpu`` and, for a
        model on CUDA, ``generator.cuda``.
    """
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


def _restore(
    tensors: dict[str, NDArray[Any]], model: TrainableModel, optimizer: torch.optim.Optimizer
) -> None:
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
