"""Run directories: the files that a training writes, and how to load them.

A run directory holds::

    run.json            the settings: model, preset, config, seed, data, split and their fingerprints
    environment.json    the environment: versions, device, threads
    items.parquet       raw item ids in the order of the item table, with their training counts
    history.json        loss and validation metrics at every evaluation
    metrics.json        the final validation metrics, and how a fit on every row was made; present only if the
                        run is finished
    best.safetensors    the weights with the best validation MRR
    last.safetensors    weights, optimiser and random generators at the last checkpoint, for `--resume`
    tensorboard/        loss and validation metrics for TensorBoard

A run that is fitted on every row also has the training on the cold-start split that chose its steps::

    selection.json      the chosen steps and the validation metrics
    split-history.json, split-best.safetensors, split-last.safetensors
                        as above; the weights are removed when the steps are chosen

While a training is at work, `.metatl-training.json` names its process. `run.json` holds a SHA-256 of its
content and one of the item table; the weights have their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from metatl.common.arguments import check_type, config_error, did_you_mean, expected_by, whole_number
from metatl.common.files import write_json, write_parquet
from metatl.common.forks import refuse_forked_child
from metatl.data.fingerprints import add_json
from metatl.data.interactions import BadRows, Repeats  # noqa: TC001 (pydantic reads them)
from metatl.data.readers.parquet_files import default_max_bytes, read_parquet
from metatl.data.split import ColdStartSplit, cold_start_split
from metatl.data.timestamps import TimestampUnit, split_unit
from metatl.exceptions import ConfigError, DataError, MissingRunError, RunError
from metatl.models import find_system
from metatl.models.contract import ScoringModel
from metatl.runs.checkpoints import load_checkpoint
from metatl.runs.run_files import PREVIOUS, has_run, is_finished, replacement_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions
    from metatl.models.contract import Model

FORMAT_VERSION = 2
_LARGEST_TEXT = 4096  # bytes of an item id, on average, that an item table may take in memory


class SplitSettings(BaseModel):
    """The arguments of :func:`metatl.data.split.cold_start_split`, which checks the ranges of the shares.

    Attributes
    ----------
    k : int
        Interactions of a new user that a model sees, K ≥ 1.
    cutoff : date, optional
        T, the date that separates training users from new users; `cutoff_quantile` decides by default.
    cutoff_quantile : float
        T as a quantile of the users' first interactions, in [0, 1].
    min_item_count : int
        Fewest interactions of an item.
    min_train_rows : int
        Fewest interactions of a training user before T.
    unseen_items : {"drop", "keep"}
        What to do with items of new users that no training user has.
    validation_share : float
        Share of the new users for validation, in [0, 1).
    split_seed : int
        Seed of the choice of validation users.

    Raises
    ------
    ConfigError
        If a field does not exist or has a wrong value.
    InvalidArgumentError
        If a count is not a whole number or is too small, or the cutoff is not a date.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = 3
    cutoff: date | None = None
    cutoff_quantile: float = Field(default=0.75, strict=True)
    min_item_count: int = 10
    min_train_rows: int = 5
    unseen_items: Literal["drop", "keep"] = "drop"
    validation_share: float = Field(default=0.3, strict=True)
    split_seed: int = 0

    def __init__(self, **settings: Any) -> None:
        # A validator cannot raise these errors: pydantic makes its own of every ValueError.
        fields = type(self).model_fields
        for name in settings:
            if name not in fields:
                hint = did_you_mean(name, fields)
                raise ConfigError(f"split: there is no setting {name!r}; there are {', '.join(fields)}{hint}")
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise config_error(error) from None

    @field_validator("k", "min_item_count", "min_train_rows", "split_seed", mode="before")
    @classmethod
    def _check_count(cls, value: Any, info: ValidationInfo) -> int:
        name = str(info.field_name)
        return whole_number(name, value, 0 if name == "split_seed" else 1)

    @field_validator("cutoff", mode="before")
    @classmethod
    def _check_cutoff(cls, value: Any) -> Any:
        # Pydantic would read the number 2020 as seconds since 1970.
        check_type("cutoff", value, (date, str, NoneType), "a date")
        return value

    def split(self, interactions: Interactions) -> ColdStartSplit:
        """Split interactions with these settings.

        Parameters
        ----------
        interactions : Interactions
            The interactions of all users.

        Returns
        -------
        ColdStartSplit
            The split.

        Raises
        ------
        InvalidArgumentError
            If a share is out of its range.
        DataError
            If no item, no training user or no new user is left.
        """
        arguments = self.model_dump()
        arguments["seed"] = arguments.pop("split_seed")
        return cold_start_split(interactions, **arguments)


class UpdatedFrom(BaseModel):
    """The run that an update started from.

    Attributes
    ----------
    dataset_fingerprint : str
        Of the data that it was fitted on.
    weights_sha256 : str
        SHA-256 of its tensors.
    steps_share : float
        Share of its training steps that the update took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_fingerprint: str
    weights_sha256: str
    steps_share: float


class RunRecord(BaseModel):
    """The content of `run.json`: all settings that are needed to repeat the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    metatl_version: str
    model: str
    preset: str
    config: dict[str, Any]
    seed: int
    device: str
    compiled: bool = False
    """Whether torch.compile fused the kernels of the training steps."""
    data: str | None
    """Name or absolute path of the data; None if `fit` got interactions in memory."""
    columns: tuple[str, str, str] | None = None
    """Names of the data's user, item and timestamp columns; None if they have their usual names."""
    timestamp_unit: TimestampUnit | None = None
    """Unit of numeric timestamps; None if none was given."""
    null_values: tuple[str, ...] | None = None
    """Texts of the data that stand for a missing value; None if none were given."""
    bad_rows: BadRows | None = None
    """What was done with rows that cannot be used; None for an error."""
    repeats: Repeats | None = None
    """Which interactions of a user with the same item were kept; None for the first."""
    dataset_fingerprint: str
    split: SplitSettings
    split_fingerprint: str
    """Of the split that chose the steps; without validation, of the split that holds nothing out."""
    validation_candidates_sha256: str | None
    """None without validation."""
    refit: bool = False
    """Whether the run is fitted on every row of every user, those of the test users included."""
    validation: bool = True
    """Whether validation users chose the steps; if not, the config's `max_steps` are taken."""
    num_items: int
    fitted_until: int | None = None
    """T of the rows that the run was fitted on, in microseconds since 1970-01-01 UTC; None in runs of version
    0.1.0."""
    updated_from: UpdatedFrom | None = None
    """Of a run that `metatl update` made."""

    @model_validator(mode="before")
    @classmethod
    def _take_unit_from_column(cls, record: Any) -> Any:
        """Read a record of version 0.1.0, whose timestamp column ends in the unit, as in ``day:ms``."""
        if not isinstance(record, dict) or "timestamp_unit" in record:
            return record
        columns = record.get("columns")
        if not isinstance(columns, (list, tuple)) or not columns or not isinstance(columns[-1], str):
            return record
        timestamp, unit = split_unit(columns[-1])
        return {**record, "columns": (*columns[:-1], timestamp), "timestamp_unit": unit}

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of :func:`metatl.datasets.load` with which the data was read."""
        names = ("columns", "timestamp_unit", "null_values", "bad_rows", "repeats")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Run:
    """A fitted system with its settings and items.

    Attributes
    ----------
    path : Path or None
        The run directory; None for a system that was fitted without one.
    record : RunRecord
        The settings.
    config : BaseModel
        The system's config.
    model : FactorisedModel, PairwiseModel or ScoringModel
        The fitted model (see :mod:`metatl.models.contract`).
    item_ids : polars.Series
        (I,) Int64 or String, raw item ids in the order of the model's item table.
    item_counts : ndarray
        (I,) int64, training interactions of each item.
    """

    path: Path | None
    record: RunRecord
    config: BaseModel
    model: Model
    item_ids: pl.Series
    item_counts: NDArray[np.int64]


def write_items(path: Path, item_ids: pl.Series, item_counts: NDArray[np.int64]) -> None:
    """Write `items.parquet`.

    Parameters
    ----------
    path : Path
        The file.
    item_ids : polars.Series
        (I,) Int64 or String, raw item ids in ascending order.
    item_counts : ndarray
        (I,) int64, training interactions of each item.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    write_parquet(path, pl.DataFrame({"item_id": item_ids, "count": item_counts}))


def write_record(directory: Path, record: RunRecord) -> None:
    """Write `run.json`, with a SHA-256 of its content and one of the bytes of `items.parquet`.

    Parameters
    ----------
    directory : Path
        The run directory, which holds `items.parquet`.
    record : RunRecord
        The settings.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    items_sha256 = hashlib.sha256((directory / "items.parquet").read_bytes()).hexdigest()
    content = {**record.model_dump(mode="json"), "items_sha256": items_sha256}
    write_json(directory / "run.json", {**content, "sha256": _sha256(content)})


def _sha256(content: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    add_json(digest, content)
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Describe Python, the machine, and the versions of the libraries, as JSON values."""
    import torch

    names = ("metatl", "torch", "numpy", "polars", "lightning-fabric", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: metadata.version(name) for name in names},
    }


def read_record(path: str | Path) -> RunRecord:
    """Read `run.json`.

    Parameters
    ----------
    path : str or Path
        The run directory.

    Returns
    -------
    RunRecord
        The run's settings.

    Raises
    ------
    RunError
        If `path` holds no run, a damaged or edited one, or one of another format version.
    """
    return _read_record(path)[0]


def _read_record(path: str | Path) -> tuple[RunRecord, str | None]:
    """Read `run.json`; return the settings, and the SHA-256 of `items.parquet`, None in format 1."""
    file = Path(path) / "run.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _interrupted(Path(path)) or MissingRunError(
            f"{path}: found no run.json; expected the directory that `metatl train --out` wrote",
            file=str(file),
        ) from None
    except NotADirectoryError:
        raise RunError(
            f"{path}: found a file; expected the directory that `metatl train --out` wrote"
        ) from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: not JSON ({error}); train again") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version not in (1, FORMAT_VERSION):
        metatl_version = content.get("metatl_version") if isinstance(content, dict) else None
        raise RunError(
            f"{file}: found run format {version} (metatl {metatl_version}), expected {FORMAT_VERSION}; "
            "train again, or use the metatl version that wrote it"
        )
    if version != 1 and content.pop("sha256", None) != _sha256(content):
        raise RunError(
            f"{file}: found a file that was edited (its SHA-256 differs); undo the change, or train "
            "again with the settings that you want"
        )
    items_sha256 = None if version == 1 else content.pop("items_sha256", "")
    try:
        return RunRecord.model_validate(content), items_sha256
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{file}: field {field!r}: {expected_by(first)}; train again") from None


def _interrupted(path: Path) -> MissingRunError | None:
    """Name the finished run that a killed `--overwrite` left at another place, if there is one."""
    real = Path(os.path.realpath(path))
    for place in (replacement_path(real), real / PREVIOUS):
        if has_run(place) and is_finished(place):
            return MissingRunError(
                f"{path}: found no run.json; an --overwrite was killed, and the run is in {place}; "
                f"`metatl train --out {path} --resume` puts it back",
                file=str(path / "run.json"),
            )
    return None


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The files of a run, without its model.

    Attributes
    ----------
    path : Path
        Where it is stored.
    record : RunRecord
        The content of `run.json`.
    config : BaseModel or None
        The settings of the system; None for an export to ONNX: their class may need torch.
    tensors : dict of str to ndarray
        The arrays of the best weights; of an export to ONNX, those of the item table.
    weights_record : dict of str to object
        The record beside the arrays.
    item_ids : polars.Series
        (I,) raw item ids.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    graph : bytes or None
        `encoder.onnx`, of an export to ONNX (:mod:`metatl.serving.export`).
    """

    path: Path
    record: RunRecord
    config: BaseModel | None
    tensors: dict[str, NDArray[Any]]
    weights_record: dict[str, Any]
    item_ids: pl.Series
    item_counts: NDArray[np.int64]
    graph: bytes | None = None


def load_run(path: str | Path, *, device: str = "cpu") -> Run:
    """Load a run with its best weights.

    Parameters
    ----------
    path : str or Path
        The directory that `metatl train --out` or :func:`metatl.fit` wrote.
    device : {"cpu", "cuda", "auto"}
        Where the model's tensors go.

    Returns
    -------
    Run
        The fitted system.

    Raises
    ------
    RunError
        If the directory holds no run, an unfinished one without weights, or a damaged one; or the device is
        unknown or not available.
    InvalidArgumentError
        If `path` is not a path.
    """
    stored = read_stored_run(path)
    if stored.config is None:
        raise RunError(
            f"{path}: found an export to ONNX, from which metatl.Recommender, `metatl recommend` and "
            "`metatl serve` answer; for everything else, use the run that was exported"
        )
    system = find_system(stored.record.model, stored.record.preset)
    with tensors_fit(stored.path):
        model = system.model_class().from_tensors(stored.config, stored.record.num_items, stored.tensors)
    return Run(
        path=stored.path,
        record=stored.record,
        config=stored.config,
        model=to_device(model, device),
        item_ids=stored.item_ids,
        item_counts=stored.item_counts,
    )


def read_stored_run(path: str | Path) -> StoredRun:
    """Read the files of a run with its best weights, without torch.

    Parameters
    ----------
    path : str or Path
        The directory of the run.

    Returns
    -------
    StoredRun
        The files' content, of one run even if another one replaces it meanwhile.

    Raises
    ------
    RunError
        If the directory holds no run, an unfinished one without weights, or a damaged one.
    InvalidArgumentError
        If `path` is not a path.
    """
    refuse_forked_child()
    check_type("path", path, (str, os.PathLike), "the directory of a run")
    path = Path(path)
    while True:
        directory = _identity(path)
        try:
            run = _read_files(path)
        except (RunError, OSError):
            if _identity(path) == directory:
                raise
        else:
            # `--overwrite` may have put another run here in between, so that the files are of both.
            if _identity(path) == directory:
                return run


@contextmanager
def tensors_fit(path: Path) -> Iterator[None]:
    """Turn whatever a model raises for tensors that do not fit its settings into an error of one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 (each model and library raises its own)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: best.safetensors does not fit run.json ({reason}); train again") from None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _read_files(path: Path) -> StoredRun:
    record, items_sha256 = _read_record(path)
    if (path / "encoder.onnx").exists() and not (path / "best.safetensors").exists():
        config = None
        tensors, weights_record, graph = _read_export(path, record.num_items)
    else:
        _check_has_weights(path)
        config, graph = _read_config(path, record), None
        tensors, weights_record = load_checkpoint(path / "best.safetensors")
    item_ids, counts = _read_items(path / "items.parquet", record.num_items, items_sha256)
    return StoredRun(path, record, config, tensors, weights_record, item_ids, counts, graph)


def _read_config(path: Path, record: RunRecord) -> BaseModel:
    system = find_system(record.model, record.preset)
    # A field that run.json lacks is newer than the run; its default may not fit the weights.
    missing = sorted(system.config_class().model_fields.keys() - record.config.keys())
    if missing:
        raise RunError(
            f"{path / 'run.json'}: found no config.{missing[0]}, which this version needs; train again"
        )
    try:
        return system.config_class().model_validate(record.config)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(["config", *map(str, first["loc"])])
        raise RunError(
            f"{path / 'run.json'}: {name}: found {first['input']!r}, {expected_by(first)}; train again"
        ) from None


def _check_has_weights(path: Path) -> None:
    if (path / "best.safetensors").exists():
        return
    if is_finished(path):
        raise MissingRunError(
            f"{path}: best.safetensors is missing; train again with `metatl train --out {path} --overwrite`",
            file=str(path / "best.safetensors"),
        )
    raise MissingRunError(
        f"{path}: the run has no weights yet; continue it with `metatl train --out {path} --resume`",
        file=str(path / "best.safetensors"),
    )


def _read_export(path: Path, num_items: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any], bytes]:
    """Read the item table and the graph of an export to ONNX, which belong together."""
    if not is_finished(path):
        raise MissingRunError(
            f"{path}: found an unfinished export; repeat `metatl export` with --overwrite",
            file=str(path / "metrics.json"),
        )
    tensors, record = load_checkpoint(path / "item_table.safetensors")
    graph = (path / "encoder.onnx").read_bytes()
    if record.get("graph_sha256") != hashlib.sha256(graph).hexdigest():
        raise RunError(
            f"{path}: found another encoder.onnx than that of the item table, or a damaged one (its SHA-256 "
            "differs); export again"
        )
    table, bias = tensors.get("item_table"), tensors.get("item_bias")
    fits = table is not None and table.ndim == 2 and table.dtype == np.float32 and len(table) == num_items  # noqa: PLR2004
    if not fits or (bias is not None and (bias.shape != (num_items,) or bias.dtype != np.float32)):
        raise RunError(f"{path}: item_table.safetensors does not fit run.json; export again")
    return tensors, record, graph


def _read_items(file: Path, num_items: int, sha256: str | None) -> tuple[pl.Series, NDArray[np.int64]]:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise MissingRunError(f"{file.parent}: {file.name} is missing; train again", file=str(file)) from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror}); train again") from None
    # Before polars sees the file: some damaged ones end the process.
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise RunError(
            f"{file}: found another item table than that of the run, or a damaged one (its SHA-256 differs); "
            "restore the file, or train again"
        )
    try:
        # The bound comes from run.json: a small file can hold very many equal rows.
        most = min(default_max_bytes(), num_items * _LARGEST_TEXT)
        items = read_parquet(content, ["item_id", "count"], max_bytes=most).rows
    except DataError as error:
        raise RunError(f"{file}: {error}; train again") from None
    item_ids, counts = items["item_id"], items["count"]
    if not _is_item_table(item_ids, counts):
        raise RunError(
            f"{file}: found a damaged table, expected distinct ids in ascending order, each with its count; "
            "train again"
        )
    if len(items) != num_items:
        raise RunError(f"{file}: found {len(items)} items, expected {num_items}; train again")
    return item_ids, counts.to_numpy().astype(np.int64)


def _is_item_table(item_ids: pl.Series, counts: pl.Series) -> bool:
    """Whether the columns are an item table: distinct ids in ascending order, and their counts."""
    return (
        item_ids.dtype in (pl.Int64, pl.String)
        and counts.dtype == pl.Int64
        and not (item_ids.has_nulls() or counts.has_nulls())
        and item_ids.is_sorted()
        and item_ids.n_unique() == len(item_ids)
    )


def resolve_device(device: str) -> str:
    """Resolve `auto` to `cuda` if there is a CUDA device, otherwise to `cpu`.

    Parameters
    ----------
    device : str
        `auto`, `cpu` or `cuda`.

    Returns
    -------
    {"cpu", "cuda"}
        The device.

    Raises
    ------
    RunError
        If `device` is unknown, or is `cuda` and no CUDA device is available.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise RunError(f"device: found {device!r}, expected auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device: cuda was asked for, but torch finds no CUDA device; use --device cpu")
    return device


def to_device(model: Model, device: str) -> Model:
    """Move a model to a device in place, and set it to evaluation mode.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A model; one that is not an `nn.Module` stays as it is.
    device : str
        `auto`, `cpu` or `cuda`.

    Returns
    -------
    FactorisedModel, PairwiseModel or ScoringModel
        The same model.

    Raises
    ------
    RunError
        If the device is unknown or not available.
    """
    # Scoring models hold arrays and must work without torch.
    if not isinstance(model, ScoringModel):
        import torch

        if isinstance(model, torch.nn.Module):
            model.to(resolve_device(device)).eval()
    return model
