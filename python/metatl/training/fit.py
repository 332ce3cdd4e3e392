"""`fit`: fit a system on interactions, with or without a run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from metatl import datasets
from metatl.common.arguments import check_type, config_error, did_you_mean
from metatl.common.forks import refuse_forked_child
from metatl.data.interactions import Interactions
from metatl.exceptions import ConfigError, InvalidArgumentError, RunError
from metatl.models import SYSTEMS, System, find_system
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
from metatl.training.fit_parts import divide, refuse_reading, refuse_unused
from metatl.training.fit_system import SystemFit
from metatl.training.stop_signals import StopSignals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from metatl.data.frames import FrameLike
    from metatl.data.interactions import BadRows, Repeats
    from metatl.data.split import ColdStartSplit
    from metatl.data.timestamps import TimestampUnit
    from metatl.training.outer_loop import Progress

_READING = ("columns", "timestamp_unit", "null_values", "bad_rows", "repeats")


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
class _Arguments:
    """The arguments of `fit`; those of a resumed run that are not given are in its record."""

    data: str | os.PathLike[str] | FrameLike | Interactions | None = None
    columns: tuple[str, str, str] | None = None
    timestamp_unit: TimestampUnit | None = None
    null_values: tuple[str, ...] | None = None
    bad_rows: BadRows | None = None
    repeats: Repeats | None = None
    model: str = "metatl"
    preset: str = "tuned"
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    split: SplitSettings = field(default_factory=SplitSettings)
    refit: bool = False
    validation: bool = True
    compiled: bool = False

    @classmethod
    def of_run(cls, directory: Path) -> _Arguments:
        """Read the record of the run to continue; a directory without a run has the usual defaults."""
        directory = unfinished_directory(directory) or directory
        if not has_run(directory):
            return cls()
        record = read_record(directory)
        return cls(
            data=record.data,
            columns=record.columns,
            timestamp_unit=record.timestamp_unit,
            null_values=record.null_values,
            bad_rows=record.bad_rows,
            repeats=record.repeats,
            model=record.model,
            preset=record.preset,
            seed=record.seed,
            # K belongs to the split.
            config={name: value for name, value in record.config.items() if name != "k"},
            split=record.split,
            refit=record.refit,
            validation=record.validation,
            compiled=record.compiled,
        )

    def replaced(
        self,
        given: Mapping[str, Any],
        *,
        refit: bool | None,
        validation: bool | None,
        config: Mapping[str, Any] | None,
        split: SplitSettings | None,
        k: int | None,
    ) -> _Arguments:
        """Replace the arguments that are given, and the fields of `config` and `split` that are."""
        # Interactions are read already, whatever the record says about a file.
        unread: dict[str, Any] = dict.fromkeys(_READING if isinstance(given["data"], Interactions) else ())
        fields = {} if split is None else split.model_dump(include=split.model_fields_set)
        fields = {**fields, **({} if k is None else {"k": k})}
        has_validation = self.validation if validation is None else validation
        if not has_validation:
            refuse_unused(refit, fields)
        return replace(
            self,
            **{**unread, **{name: value for name, value in given.items() if value is not None}},
            config={**self.config, **(config or {})},
            split=SplitSettings(**{**self.split.model_dump(), **fields}),
            refit=not has_validation or (self.refit if refit is None else refit),
            validation=has_validation,
        )

    def load(self) -> Interactions:
        """Read the data."""
        if self.data is None:
            raise InvalidArgumentError(
                "data: found nothing, expected the path of a file, or wines for the bundled ratings"
            )
        if isinstance(self.data, Interactions):
            return self.data
        return datasets.load(self.data, **{name: getattr(self, name) for name in _READING})

    @property
    def recorded(self) -> dict[str, Any]:
        """The fields of the record that are arguments, except the config."""
        named = isinstance(self.data, (str, os.PathLike))
        return {
            "data": datasets.source(self.data) if named else None,  # type: ignore[arg-type]
            **{name: getattr(self, name) for name in (*_READING, "model", "preset", "seed", "compiled")},
            "repeats": None if self.repeats == "first" else self.repeats,
            "split": self.split.model_dump(mode="json"),
            "refit": self.refit,
            "validation": self.validation,
        }


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
    refit: bool | None = None,
    validation: bool | None = None,
    columns: tuple[str, str, str] | None = None,
    timestamp_unit: TimestampUnit | None = None,
    null_values: Sequence[str] | None = None,
    bad_rows: BadRows | None = None,
    repeats: Repeats | None = None,
    device: str = "auto",
    compiled: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_data: Callable[[Interactions, ColdStartSplit], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Fit a system on the training users of a cold-start split, or with `refit` on every row of every user.

    With `resume`, an argument that is not given has the value in the record of the run, and so has a field of
    `config` or `split` that is not given.

    Parameters
    ----------
    data : str, Path, table or Interactions, optional
        `wines`, the path of an interactions file, a table as :meth:`metatl.Interactions.from_frame` takes
        it, or interactions in memory; can be left out only to resume a run that was fitted on a file.
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
    refit : bool, optional
        Choose the training steps by the validation MRR on the split, then fit once more, with as many steps,
        on every row of every user with every item that has `min_item_count` rows; `min_train_rows` is for
        the split only. The run is for use and cannot be evaluated. False by default.
    validation : bool, optional
        False holds nothing out: the system is fitted on every row with the `max_steps` of its config, and no
        split is made. Implies `refit`. True by default.
    columns : tuple of str, optional
        Names of the user, item and timestamp columns of a file or table. By default the usual names are
        tried.
    timestamp_unit : {"s", "ms", "us", "ns", "YYYYMMDD"}, optional
        Unit of numeric timestamps; by default seconds, or what a published format uses.
    null_values : sequence of str, optional
        Texts that stand for a missing value; rows that have one are left out.
    bad_rows : {"error", "skip"}, optional
        What to do with rows that cannot be used; an error by default.
    repeats : {"first", "all"}, optional
        Which interactions of a user with the same item are kept; the first by default.
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
        Called with the interactions and their split before the training starts; without validation, the
        split is :func:`metatl.data.split.hold_nothing_out`. Not called for a finished run, whose data is not
        read.
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
    reading: dict[str, Any] = {
        "columns": columns,
        "timestamp_unit": timestamp_unit,
        "null_values": None if null_values is None else tuple(null_values),
        "bad_rows": bad_rows,
        "repeats": repeats,
    }
    if isinstance(data, Interactions):
        refuse_reading(**reading)
    check_type("config", config, (Mapping, NoneType), "a mapping of fields to values, as in {'dim': 64}")
    check_type(
        "split", split, (SplitSettings, NoneType), "metatl.SplitSettings, as in metatl.SplitSettings(k=3)"
    )
    directory = None if out is None else Path(out)
    defaults = _Arguments() if directory is None or not resume else _Arguments.of_run(directory)
    given = {"data": data, "model": model, "preset": preset, "seed": seed, "compiled": compiled, **reading}
    arguments = defaults.replaced(given, refit=refit, validation=validation, config=config, split=split, k=k)
    system = find_system(arguments.model, arguments.preset)
    if directory is not None:
        check_directory(directory, resume=resume, overwrite=overwrite)
        if resume and has_run(unfinished_directory(directory) or directory):
            # Checked before the config, whose fields depend on the system.
            unfinished = unfinished_directory(directory)
            before = read_record(unfinished or directory)
            if unfinished is not None and before.updated_from is not None:
                raise RunError(
                    f"{directory}: found an interrupted update; repeat `metatl update` to continue it"
                )
            refuse_changes(directory, before, {"model": arguments.model, "preset": arguments.preset})
    settings = configure(system, arguments.preset, arguments.config, k=arguments.split.k)
    device = resolve_device(device)
    _check_compiled(system, compiled=arguments.compiled)
    if directory is not None and resume and is_complete(directory):
        _check_finished(directory, arguments, settings)
        tidy(directory)
        return load_run(directory, device=device)
    interactions = arguments.load()
    parts = divide(
        interactions,
        arguments.split,
        refit=arguments.refit,
        validation=arguments.validation,
        seed=arguments.seed,
        on_data=on_data,
    )
    record = RunRecord(
        metatl_version=metadata.version("metatl"),
        config=settings.model_dump(mode="json"),
        device=device,
        dataset_fingerprint=interactions.fingerprint,
        split_fingerprint=parts.chosen_on.fingerprint,
        validation_candidates_sha256=None if parts.candidates is None else parts.candidates.sha256,
        num_items=parts.final.num_items,
        fitted_until=parts.final.cutoff_timestamp,
        **{**arguments.recorded, "split": arguments.split},
    )
    fitting = SystemFit(system, record, settings, parts, on_progress)
    item_ids, item_counts = parts.final.item_ids, parts.final.train.item_counts
    with StopSignals() as stop:
        if directory is None:
            return Run(None, record, settings, fitting.run(stop, None, resume=False), item_ids, item_counts)
        with training_directory(
            directory, record, item_ids, item_counts, resume=resume, overwrite=overwrite
        ) as target:
            if target.is_finished:
                fitted = load_run(target.directory, device=device).model
            else:
                fitted = fitting.run(stop, target.directory, resume=target.is_continued)
    return Run(directory, target.record, settings, fitted, item_ids, item_counts)


def _check_compiled(system: System, *, compiled: bool) -> None:
    if compiled and not system.compiles:
        can = ", ".join(name for name, other in SYSTEMS.items() if other.compiles)
        raise ConfigError(
            f"compiled: found true for {system.name}, but only {can} can be compiled; leave it out"
        )


def _check_finished(directory: Path, arguments: _Arguments, config: BaseModel) -> None:
    """Refuse a finished run of other settings; a data file is read only if the run names another one."""
    requested = {**arguments.recorded, "config": config.model_dump(mode="json")}
    saved, data, source = read_record(directory), arguments.data, requested.pop("data")
    if data is not None and (source is None or source != saved.data):
        requested["dataset_fingerprint"] = arguments.load().fingerprint
    refuse_changes(directory, saved, requested)
