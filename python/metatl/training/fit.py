"""`fit`: fit a system on interactions, with or without a run directory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from metatl import datasets
from metatl.common.arguments import check_type, config_error
from metatl.common.files import write_json
from metatl.data.candidates import sample_candidate_sets
from metatl.data.full_users import leave_out_full_users
from metatl.data.interactions import Interactions
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError, NoNegativeError, RunError
from metatl.models import SYSTEMS, System, find_system
from metatl.ranking.rank import candidate_metrics
from metatl.runs.checkpoints import save_checkpoint
from metatl.runs.run_directory import (
    RUN_FILES,
    Run,
    RunRecord,
    SplitSettings,
    environment,
    is_finished,
    load_run,
    read_record,
    resolve_device,
    write_items,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit
    from metatl.data.timestamps import TimestampUnit
    from metatl.models.contract import Model
    from metatl.training.outer_loop import Progress

VALIDATION_NEGATIVES = 100

PREVIOUS = ".previous"
"""Folder of a run directory that keeps the previous finished run until the new one is finished."""


def configure(system: System, preset: str, overrides: Mapping[str, Any], *, k: int) -> BaseModel:
    """Build a system's config: a preset with some fields replaced.

    Parameters
    ----------
    system : System
        The system to configure.
    preset : str
        One of its presets.
    overrides : mapping of str to object
        Fields that differ from the preset; text is parsed as the field's type.
    k : int
        K of the split, the length of the histories that the system is configured for.

    Returns
    -------
    BaseModel
        The config.

    Raises
    ------
    ConfigError
        If a field does not exist or has a wrong value, or the preset does not exist.
    """
    config_class: Any = system.config_class()
    fields = config_class.model_fields
    for name in overrides:
        if name not in fields:
            there = ", ".join(fields) or "no fields"
            raise ConfigError(f"config: {system.name} has no field {name!r}; it has {there}")
    values = {**config_class.preset(preset).model_dump(), **overrides}
    if "k" in fields:
        if overrides.get("k", k) != k:
            raise ConfigError(f"config: found k={overrides['k']!r}, expected {k} as in the split; use --k")
        values["k"] = k
    try:
        config: BaseModel = config_class(**values)
    except ValidationError as error:
        raise config_error(error) from None
    return config


@dataclass(frozen=True)
class _Defaults:
    """The values of the arguments of `fit` that are not given; of a resumed run, those in its record."""

    data: str = datasets.BUNDLED
    columns: tuple[str, str, str] | None = None
    timestamp_unit: TimestampUnit | None = None
    model: str = "metatl"
    preset: str = "tuned"
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    split: SplitSettings = field(default_factory=SplitSettings)
    compiled: bool = False

    @classmethod
    def of_run(cls, directory: Path) -> _Defaults:
        """Read the record of the run in a directory; a directory without a run has the usual defaults."""
        if not (directory / "run.json").exists():
            return cls()
        record = read_record(directory)
        return cls(
            data=datasets.BUNDLED if record.data is None else record.data,
            columns=record.columns,
            timestamp_unit=record.timestamp_unit,
            model=record.model,
            preset=record.preset,
            seed=record.seed,
            # K belongs to the split.
            config={name: value for name, value in record.config.items() if name != "k"},
            split=record.split,
            compiled=record.compiled,
        )

    def merge_split(self, split: SplitSettings | None, k: int | None) -> SplitSettings:
        """Replace the settings of the split that are given."""
        given = {} if split is None else split.model_dump(include=split.model_fields_set)
        return SplitSettings(**{**self.split.model_dump(), **given, **({} if k is None else {"k": k})})


def fit(
    data: str | Path | Interactions | None = None,
    *,
    model: str | None = None,
    preset: str | None = None,
    k: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    split: SplitSettings | None = None,
    columns: tuple[str, str, str] | None = None,
    timestamp_unit: TimestampUnit | None = None,
    device: str = "auto",
    compiled: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Fit a system on the training users of a cold-start split.

    With `resume`, an argument that is not given has the value in the record of the run, and so has a field of
    `config` or `split` that is not given.

    Parameters
    ----------
    data : str, Path or Interactions, optional
        `wines`, the path of an interactions file, or interactions in memory; `wines` by default.
    model : str, optional
        Name of a system, one of :data:`metatl.models.SYSTEMS`; `metatl` by default.
    preset : str, optional
        One of the presets of the system; `tuned` by default.
    k : int, optional
        Interactions of a new user that a model sees, K; overrides `split.k`.
    seed : int, optional
        Seed of weights, batches, dropout and validation candidates; 0 by default.
    out : str or Path, optional
        Run directory to write. By default the system is kept in memory only.
    config : mapping of str to object, optional
        Fields of the system's config that differ from the preset.
    split : SplitSettings, optional
        How to split; by default the defaults of :class:`metatl.SplitSettings`.
    columns : tuple of str, optional
        Names of the file's user, item and timestamp columns. By default the usual names are tried.
    timestamp_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the file's numeric timestamps; by default seconds, or what a published format uses.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    compiled : bool, optional
        Whether torch.compile fuses the kernels of a training step; not every system supports it. Compilation
        takes ten to twenty seconds at the start and, on a CPU, needs a C++ compiler. Steps are then up to 2.5
        times as fast on CUDA and 1.5 times as fast on a CPU. Sums are added in another order, so the weights
        differ by rounding. False by default.
    resume : bool
        Continue the run in `out`. Settings that differ from its own are refused. A finished run is loaded. If
        `out` holds no run, a new one is started.
    overwrite : bool
        Replace the run in `out`. A finished run is kept in `out`/.previous until the new one is finished. It
        is restored if the new one fails before its first checkpoint.
    on_progress : callable, optional
        Called with a :class:`metatl.training.outer_loop.Progress` after every training step.

    Returns
    -------
    Run
        The fitted system with its best weights.

    Raises
    ------
    MetatlError
        If the data, the settings or the run directory are invalid.
    TrainingStopped
        After Ctrl-C or SIGTERM during training, once a checkpoint is saved.
    """
    if columns is not None and isinstance(data, Interactions):
        raise InvalidArgumentError(
            f"columns: found {columns!r} with interactions in memory, expected None; only a file has columns"
        )
    if timestamp_unit is not None and isinstance(data, Interactions):
        raise InvalidArgumentError(
            f"timestamp_unit: found {timestamp_unit!r} with interactions in memory, expected None; their "
            "timestamps are microseconds"
        )
    check_type("config", config, (Mapping, NoneType), "a mapping of fields to values, as in {'dim': 64}")
    directory = None if out is None else Path(out)
    defaults = _Defaults() if directory is None or not resume else _Defaults.of_run(directory)
    data = defaults.data if data is None else data
    model = defaults.model if model is None else model
    preset = defaults.preset if preset is None else preset
    seed = defaults.seed if seed is None else seed
    compiled = defaults.compiled if compiled is None else compiled
    if not isinstance(data, Interactions):
        columns = defaults.columns if columns is None else columns
        timestamp_unit = defaults.timestamp_unit if timestamp_unit is None else timestamp_unit
    system = find_system(model, preset)
    if directory is not None:
        _check_directory(directory, model, preset, resume=resume, overwrite=overwrite)
    check_type(
        "split", split, (SplitSettings, NoneType), "metatl.SplitSettings, as in metatl.SplitSettings(k=3)"
    )
    split_settings = defaults.merge_split(split, k)
    settings = configure(system, preset, {**defaults.config, **(config or {})}, k=split_settings.k)
    device = resolve_device(device)
    if compiled and not system.compiles:
        can = ", ".join(name for name, other in SYSTEMS.items() if other.compiles)
        raise ConfigError(f"compiled: found true for {model}, but only {can} can be compiled; leave it out")
    if directory is not None and resume and is_finished(directory):
        _check_finished(
            directory, data, model, preset, settings, seed, split_settings, columns, timestamp_unit
        )
        return load_run(directory, device=device)
    interactions = data if isinstance(data, Interactions) else datasets.load(data, columns, timestamp_unit)
    cold_start = split_settings.split(interactions)
    candidates = _validation_candidates(cold_start, seed)
    record = RunRecord(
        metatl_version=metadata.version("metatl"),
        model=model,
        preset=preset,
        config=settings.model_dump(mode="json"),
        seed=seed,
        device=device,
        compiled=compiled,
        data=None if isinstance(data, Interactions) else datasets.source(data),
        columns=columns,
        timestamp_unit=timestamp_unit,
        dataset_fingerprint=interactions.fingerprint,
        split=split_settings,
        split_fingerprint=cold_start.fingerprint,
        validation_candidates_sha256=candidates.sha256,
        num_items=cold_start.train.num_items,
    )
    item_ids = cold_start.train.item_ids
    item_counts = cold_start.train.item_counts
    resume = resume and directory is not None and (directory / "run.json").exists()
    if directory is not None and resume:
        _check_same_settings(read_record(directory), record.model_dump(mode="json"), directory)
    with _previous_run_kept(directory):
        if directory is not None and not resume:
            _start_directory(directory, record, item_ids, item_counts)
        fitted = _fit_system(
            system,
            record,
            settings,
            cold_start,
            candidates,
            directory,
            resume=resume,
            on_progress=on_progress,
        )
    return Run(directory, record, settings, fitted, item_ids, item_counts)


def _validation_candidates(split: ColdStartSplit, seed: int) -> CandidateSets:
    if len(split.validation) == 0:
        raise DataError(
            f"found no validation users among {split.cold.num_users} new ones, expected at least one to "
            "select the weights by the MRR; raise validation_share, or choose an earlier cutoff"
        )
    try:
        return sample_candidate_sets(split, split.validation, n=VALIDATION_NEGATIVES, seed=seed)
    except NoNegativeError:
        # A small catalogue has fewer negatives. Selecting weights only compares MRRs on the same candidates.
        users = leave_out_full_users(split.cold, split.validation, "validation")
        fewest = int((split.num_items - split.cold.distinct_items[users]).min())
        return sample_candidate_sets(split, users, n=min(VALIDATION_NEGATIVES, fewest), seed=seed)


def _fit_system(
    system: System,
    record: RunRecord,
    config: Any,
    split: ColdStartSplit,
    candidates: CandidateSets,
    directory: Path | None,
    *,
    resume: bool,
    on_progress: Callable[[Progress], None] | None,
) -> Model:
    """Train a system, or compute it in one pass, and write its weights and metrics to the directory."""
    fitted: Any
    if system.batches is None:
        fitted = system.model_class().fit(split.train, config)
    else:
        import torch

        from metatl.training.outer_loop import train

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(record.seed)
            fitted = system.model_class().for_training(config, split.train)
        train(
            fitted,
            system.batches,
            split,
            candidates,
            config=config,
            seed=record.seed,
            device=record.device,
            compiled=record.compiled,
            directory=directory,
            resume=resume,
            on_progress=on_progress,
        )
    metrics = candidate_metrics(fitted, split, candidates)
    if directory is not None:
        if system.batches is None:
            save_checkpoint(directory / "best.safetensors", fitted.tensors(), metrics)
        # Written last: its presence means that the run is finished.
        write_json(directory / "metrics.json", {"validation": metrics})
    model: Model = fitted
    return model


def _check_directory(directory: Path, model: str, preset: str, *, resume: bool, overwrite: bool) -> None:
    for path in (directory, *directory.parents):
        if path.is_symlink() and not path.exists():
            raise RunError(
                f"{path}: found a link to {path.readlink()}, which is missing; make that directory, "
                "or remove the link"
            )
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory}: found a file, expected a directory to write the run to")
    if resume and overwrite:
        raise RunError("resume and overwrite exclude each other")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / "run.json").exists():
        raise RunError(f"{directory}: found a directory with other files; choose an empty or a new one")
    if not resume and not overwrite:
        raise RunError(
            f"{directory}: already holds a run; continue it with --resume or replace it with --overwrite"
        )
    if resume:
        # Checked before the config, whose fields depend on the system.
        _refuse_changes(directory, read_record(directory).model_dump(), {"model": model, "preset": preset})


def _check_finished(
    directory: Path,
    data: str | Path | Interactions,
    model: str,
    preset: str,
    config: BaseModel,
    seed: int,
    split: SplitSettings,
    columns: tuple[str, str, str] | None,
    timestamp_unit: TimestampUnit | None,
) -> None:
    """Refuse a finished run of other settings; a data file is read only if the run names another one."""
    requested = {
        "model": model,
        "preset": preset,
        "seed": seed,
        "columns": columns,
        "timestamp_unit": timestamp_unit,
        "split": split.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
    }
    saved = read_record(directory)
    if isinstance(data, Interactions):
        requested["dataset_fingerprint"] = data.fingerprint
    elif datasets.source(data) != saved.data:
        requested["dataset_fingerprint"] = datasets.load(data, columns, timestamp_unit).fingerprint
    _check_same_settings(saved, requested, directory)


def _check_same_settings(saved: RunRecord, requested: Mapping[str, Any], directory: Path) -> None:
    """Refuse to continue a run with other settings than its own.

    Parameters
    ----------
    saved : RunRecord
        The settings of the run in the directory.
    requested : mapping of str to object
        Some fields of such a record as JSON values. The device and the path of the data may differ.
    directory : Path
        The run directory, for the error.

    Raises
    ------
    RunError
        If a field differs.
    """
    _refuse_changes(directory, _flatten(saved.model_dump(mode="json")), _flatten(requested))


def _refuse_changes(directory: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = [
        f"{name} was {before.get(name)}, now {now.get(name)}" for name in now if before.get(name) != now[name]
    ]
    if differences:
        raise RunError(f"{directory}: cannot be continued with other settings: {'; '.join(differences)}")


def _flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """Map the name of every setting to its value, without the device and the path of the data."""
    settings = {name: value for name, value in record.items() if name not in ("device", "data")}
    columns = settings.get("columns")
    if columns is not None:
        settings["columns"] = list(columns)
    groups = [settings.pop(name) for name in ("split", "config")]
    return {**settings, **groups[0], **groups[1]}


def _start_directory(
    directory: Path, record: RunRecord, item_ids: pl.Series, item_counts: NDArray[np.int64]
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _set_aside(directory)
    write_items(directory / "items.parquet", item_ids, item_counts)
    write_json(directory / "environment.json", environment())
    write_json(directory / "run.json", record.model_dump(mode="json"))


def _set_aside(directory: Path) -> None:
    """Move a finished run to `PREVIOUS`; delete an unfinished one."""
    previous = directory / PREVIOUS
    if is_finished(directory):
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir()
        for name in (*RUN_FILES, "tensorboard"):
            if (directory / name).exists():
                (directory / name).rename(previous / name)
    _remove_run(directory)


def _remove_run(directory: Path) -> None:
    for name in RUN_FILES:
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "tensorboard", ignore_errors=True)


@contextmanager
def _previous_run_kept(directory: Path | None) -> Iterator[None]:
    """Delete the previous run after the block; restore it if the block fails before its first checkpoint."""
    try:
        yield
    except BaseException:
        if directory is not None and not (directory / "last.safetensors").exists():
            _restore_previous(directory)
        raise
    if directory is not None:
        shutil.rmtree(directory / PREVIOUS, ignore_errors=True)


def _restore_previous(directory: Path) -> None:
    previous = directory / PREVIOUS
    if previous.exists():
        _remove_run(directory)
        for part in previous.iterdir():
            part.rename(directory / part.name)
        previous.rmdir()
