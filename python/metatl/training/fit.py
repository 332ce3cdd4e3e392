"""`fit`: fit a system on interactions, with or without a run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError

from metatl import datasets
from metatl.common.arguments import check_type, config_error, did_you_mean
from metatl.common.files import write_json
from metatl.common.forks import refuse_forked_child
from metatl.data.candidates import sample_candidate_sets
from metatl.data.full_users import leave_out_full_users
from metatl.data.interactions import Interactions
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError, NoNegativeError
from metatl.models import SYSTEMS, System, find_system
from metatl.ranking.rank import candidate_metrics
from metatl.runs.checkpoints import save_checkpoint
from metatl.runs.run_directory import (
    Run,
    RunRecord,
    SplitSettings,
    load_run,
    read_record,
    resolve_device,
)
from metatl.runs.run_files import has_run
from metatl.runs.settings_changes import refuse_changes
from metatl.runs.training_directory import (
    check_directory,
    is_complete,
    tidy,
    training_directory,
    unfinished_directory,
)
from metatl.training.stop_signals import StopSignals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from metatl.data.candidates import CandidateSets
    from metatl.data.frames import FrameLike
    from metatl.data.interactions import BadRows
    from metatl.data.split import ColdStartSplit
    from metatl.data.timestamps import TimestampUnit
    from metatl.models.contract import Model
    from metatl.training.outer_loop import Progress

VALIDATION_NEGATIVES = 100
_FEW_NEGATIVES = 0.1  # the quantile of the users' numbers of negatives that half of which a user must have


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
            raise ConfigError(
                f"config: {system.name} has no field {name!r}; it has {there}{did_you_mean(name, fields)}"
            )
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
    null_values: tuple[str, ...] | None = None
    bad_rows: BadRows | None = None
    model: str = "metatl"
    preset: str = "tuned"
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    split: SplitSettings = field(default_factory=SplitSettings)
    compiled: bool = False

    @classmethod
    def of_run(cls, directory: Path) -> _Defaults:
        """Read the record of the run to continue; a directory without a run has the usual defaults."""
        directory = unfinished_directory(directory) or directory
        if not has_run(directory):
            return cls()
        record = read_record(directory)
        return cls(
            data=datasets.BUNDLED if record.data is None else record.data,
            columns=record.columns,
            timestamp_unit=record.timestamp_unit,
            null_values=record.null_values,
            bad_rows=record.bad_rows,
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
    data: str | Path | FrameLike | Interactions | None = None,
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
    null_values: Sequence[str] | None = None,
    bad_rows: BadRows | None = None,
    device: str = "auto",
    compiled: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_data: Callable[[Interactions, ColdStartSplit], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Fit a system on the training users of a cold-start split.

    With `resume`, an argument that is not given has the value in the record of the run, and so has a field of
    `config` or `split` that is not given.

    Parameters
    ----------
    data : str, Path, table or Interactions, optional
        `wines`, the path of an interactions file, a table as :meth:`metatl.Interactions.from_frame` takes
        it, or interactions in memory; `wines` by default.
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
        Names of the user, item and timestamp columns of a file or table. By default the usual names are
        tried.
    timestamp_unit : {"s", "ms", "us", "ns", "YYYYMMDD"}, optional
        Unit of numeric timestamps; by default seconds, or what a published format uses.
    null_values : sequence of str, optional
        Texts that stand for a missing value; rows that have one are left out.
    bad_rows : {"error", "skip"}, optional
        What to do with rows that cannot be used; an error by default.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    compiled : bool, optional
        Whether torch.compile fuses the kernels of a training step; not every system supports it. Compilation
        takes ten to twenty seconds at the start and, on a CPU, needs a C++ compiler. Steps are then up to 2.5
        times as fast on CUDA and 1.5 times as fast on a CPU. Sums are added in another order, so the weights
        differ by rounding. False by default.
    resume : bool
        Continue the run in `out`, or the one that `overwrite` began to replace it with. Settings that differ
        from its own are refused. A finished run is loaded. If `out` holds no run, a new one is started.
    overwrite : bool
        Replace the run in `out`. The new run is built beside it, in ``.NAME.new``, and takes its place in one
        step when it is finished; until then the run in `out` can be loaded. Files of other names in `out` are
        kept. After an interruption the same call, or `resume`, continues the new run.
    on_data : callable, optional
        Called with the interactions and their split before the training starts. Not called for a finished
        run, whose data is not read.
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
        After Ctrl-C, SIGTERM or SIGHUP during training, once a checkpoint is saved; after SIGTERM or SIGHUP
        before the first step, once what was begun in `out` is removed.
    """
    refuse_forked_child()
    if isinstance(data, Interactions):
        _refuse_reading(
            columns=columns, timestamp_unit=timestamp_unit, null_values=null_values, bad_rows=bad_rows
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
        null_values = defaults.null_values if null_values is None else tuple(null_values)
        bad_rows = defaults.bad_rows if bad_rows is None else bad_rows
    system = find_system(model, preset)
    if directory is not None:
        check_directory(directory, resume=resume, overwrite=overwrite)
        if resume and has_run(unfinished_directory(directory) or directory):
            # Checked before the config, whose fields depend on the system.
            before = read_record(unfinished_directory(directory) or directory)
            refuse_changes(directory, before, {"model": model, "preset": preset})
    check_type(
        "split", split, (SplitSettings, NoneType), "metatl.SplitSettings, as in metatl.SplitSettings(k=3)"
    )
    split_settings = defaults.merge_split(split, k)
    settings = configure(system, preset, {**defaults.config, **(config or {})}, k=split_settings.k)
    device = resolve_device(device)
    _check_compiled(system, compiled=compiled)
    reading: dict[str, Any] = {
        "columns": columns,
        "timestamp_unit": timestamp_unit,
        "null_values": null_values,
        "bad_rows": bad_rows,
    }
    if directory is not None and resume and is_complete(directory):
        _check_finished(directory, data, model, preset, settings, seed, split_settings, reading)
        tidy(directory)
        return load_run(directory, device=device)
    interactions = data if isinstance(data, Interactions) else datasets.load(data, **reading)
    cold_start = split_settings.split(interactions)
    if on_data is not None:
        on_data(interactions, cold_start)
    candidates = _validation_candidates(cold_start, seed)
    item_ids = cold_start.train.item_ids
    item_counts = cold_start.train.item_counts
    record = RunRecord(
        metatl_version=metadata.version("metatl"),
        model=model,
        preset=preset,
        config=settings.model_dump(mode="json"),
        seed=seed,
        device=device,
        compiled=compiled,
        data=datasets.source(data) if isinstance(data, (str, os.PathLike)) else None,
        **reading,
        dataset_fingerprint=interactions.fingerprint,
        split=split_settings,
        split_fingerprint=cold_start.fingerprint,
        validation_candidates_sha256=candidates.sha256,
        num_items=cold_start.train.num_items,
    )
    train = partial(_fit_system, system, record, settings, cold_start, candidates, on_progress=on_progress)
    with StopSignals() as stop:
        if directory is None:
            return Run(None, record, settings, train(stop, None, resume=False), item_ids, item_counts)
        with training_directory(
            directory, record, item_ids, item_counts, resume=resume, overwrite=overwrite
        ) as target:
            if target.is_finished:
                fitted = load_run(target.directory, device=device).model
            else:
                fitted = train(stop, target.directory, resume=target.is_continued)
    return Run(directory, target.record, settings, fitted, item_ids, item_counts)


def _refuse_reading(**arguments: Any) -> None:
    """Refuse arguments that say how data is read where it is read already."""
    for name, value in arguments.items():
        if value is not None:
            raise InvalidArgumentError(
                f"{name}: found {value!r} with Interactions, expected None; only a file or a table is read"
            )


def _check_compiled(system: System, *, compiled: bool) -> None:
    if compiled and not system.compiles:
        can = ", ".join(name for name, other in SYSTEMS.items() if other.compiles)
        raise ConfigError(
            f"compiled: found true for {system.name}, but only {can} can be compiled; leave it out"
        )


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
        # Users with very many items must not decide how few negatives all others get.
        left = split.num_items - split.cold.distinct_items[users]
        usual = min(VALIDATION_NEGATIVES, int(np.quantile(left, _FEW_NEGATIVES, method="lower")))
        users = leave_out_full_users(split.cold, users, "validation", negatives=(usual + 1) // 2)
        fewest = int((split.num_items - split.cold.distinct_items[users]).min())
        return sample_candidate_sets(split, users, n=min(VALIDATION_NEGATIVES, fewest), seed=seed)


def _fit_system(
    system: System,
    record: RunRecord,
    config: Any,
    split: ColdStartSplit,
    candidates: CandidateSets,
    stop: StopSignals,
    directory: Path | None,
    *,
    resume: bool,
    on_progress: Callable[[Progress], None] | None,
) -> Model:
    """Train a system, or compute it in one pass, and write its weights and metrics to the directory."""
    fitted: Any
    if system.batches is None:
        fitted = system.model_class().fit(split.train, config)
        stop.wait_for_step()  # only the files are left to write
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
            stop=stop,
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


def _check_finished(
    directory: Path,
    data: str | Path | FrameLike | Interactions,
    model: str,
    preset: str,
    config: BaseModel,
    seed: int,
    split: SplitSettings,
    reading: Mapping[str, Any],
) -> None:
    """Refuse a finished run of other settings; a data file is read only if the run names another one."""
    requested = {
        "model": model,
        "preset": preset,
        "seed": seed,
        **reading,
        "split": split.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
    }
    saved = read_record(directory)
    if isinstance(data, Interactions):
        requested["dataset_fingerprint"] = data.fingerprint
    elif not isinstance(data, (str, os.PathLike)) or datasets.source(data) != saved.data:
        requested["dataset_fingerprint"] = datasets.load(data, **reading).fingerprint
    refuse_changes(directory, saved, requested)
