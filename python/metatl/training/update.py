"""`update`: go on from a run on a longer log, and put the new run at its place."""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metatl import datasets
from metatl.common.arguments import check_type
from metatl.common.forks import refuse_forked_child
from metatl.data.ids import id_text
from metatl.data.interactions import Interactions
from metatl.data.split import hold_nothing_out
from metatl.exceptions import DataError, InvalidArgumentError, RunError
from metatl.models import find_system
from metatl.runs.checkpoints import load_checkpoint, tensors_sha256
from metatl.runs.run_directory import Run, RunRecord, UpdatedFrom, load_run, resolve_device
from metatl.runs.run_files import has_run, is_finished
from metatl.runs.training_directory import Target, check_directory, tidy, training_directory
from metatl.training.fit_parts import FitParts, refuse_reading
from metatl.training.fit_system import SystemFit
from metatl.training.stop_signals import StopSignals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from metatl.data.frames import FrameLike
    from metatl.data.interactions import BadRows, Repeats
    from metatl.data.split import ColdStartSplit
    from metatl.data.timestamps import TimestampUnit
    from metatl.models import System
    from metatl.training.outer_loop import Progress
    from metatl.training.warm_start import WarmStart

STEPS_SHARE = 0.2


def update(
    run: str | Path | Run,
    data: str | Path | FrameLike | Interactions,
    *,
    out: str | Path | None = None,
    steps_share: float = STEPS_SHARE,
    columns: tuple[str, str, str] | None = None,
    timestamp_unit: TimestampUnit | None = None,
    null_values: Sequence[str] | None = None,
    bad_rows: BadRows | None = None,
    repeats: Repeats | None = None,
    device: str = "auto",
    on_data: Callable[[Interactions, ColdStartSplit], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Bring a run up to a longer log of interactions: more rows, more users, more items.

    The new run is fitted on every row, as with ``fit(..., refit=True)``. A system that counts is counted
    anew, so its weights are those of a fit on the whole log. A trained system starts from the weights of
    the run and takes the last of its steps once more; :mod:`metatl.training.warm_start` says how new items
    start.

    Until the new run is finished, the old one is in its place and can be loaded; they are exchanged in one
    step. After an interruption the same call continues.

    Parameters
    ----------
    run : str, Path or Run
        The directory of a finished run, or the run.
    data : str, Path, table or Interactions
        The whole log, the rows that the run was fitted on included: a run does not keep them.
    out : str or Path, optional
        Run directory to write. By default the new run replaces the old one; a run that is in memory only is
        not written.
    steps_share : float
        Share of the training steps of the run that a trained system takes, above 0 and at most 1.
    columns, timestamp_unit, null_values, bad_rows, repeats : optional
        How the data is read, see :func:`metatl.fit`; by default as that of the run was.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    on_data : callable, optional
        Called with the interactions and the split that holds nothing out, before the training starts.
    on_progress : callable, optional
        Called with a :class:`metatl.training.outer_loop.Progress` after every training step.

    Returns
    -------
    Run
        The new run; the old one if it is fitted on every row of the same log already.

    Raises
    ------
    RunError
        If the directory holds no finished run, another training is at work in it, or it cannot be replaced.
    DataError
        If the data cannot be read, or lacks rows that the run was fitted on.
    InvalidArgumentError
        If `steps_share` is out of its range, or an argument has the wrong type.
    TrainingStopped
        See :func:`metatl.fit`.
    """
    refuse_forked_child()
    check_type("steps_share", steps_share, (int, float), "a number")
    if not 0 < steps_share <= 1:
        raise InvalidArgumentError(f"steps_share: found {steps_share}, expected above 0 and at most 1")
    check_type("run", run, (str, os.PathLike, Run), "the directory of a run, or a run")
    given = {
        "columns": columns,
        "timestamp_unit": timestamp_unit,
        "null_values": None if null_values is None else tuple(null_values),
        "bad_rows": bad_rows,
        "repeats": repeats,
    }
    if isinstance(data, Interactions):
        refuse_reading(**given)
    old, source = _open(run)
    target_path = source if out is None else Path(out)
    in_place = target_path is not None and source is not None and _same_directory(target_path, source)
    if target_path is not None:
        check_directory(target_path, resume=not in_place, overwrite=in_place)
    device = resolve_device(device)
    reading = {**old.record.reading, **{name: value for name, value in given.items() if value is not None}}
    if reading["repeats"] == "first":
        reading["repeats"] = None
    interactions = data if isinstance(data, Interactions) else datasets.load(data, **reading)
    if in_place and old.record.refit and old.record.dataset_fingerprint == interactions.fingerprint:
        return old
    settings = old.record.split
    whole = hold_nothing_out(interactions, k=settings.k, min_item_count=settings.min_item_count)
    _check_holds_the_rows_of(old, interactions, whole)
    if on_data is not None:
        on_data(interactions, whole)
    system = find_system(old.record.model, old.record.preset)
    record = old.record.model_copy(
        update={
            "format_version": RunRecord.model_fields["format_version"].default,
            "metatl_version": metadata.version("metatl"),
            "device": device,
            "data": datasets.source(data) if isinstance(data, (str, os.PathLike)) else None,
            **(dict.fromkeys(reading) if isinstance(data, Interactions) else reading),
            "dataset_fingerprint": interactions.fingerprint,
            "split_fingerprint": whole.fingerprint,
            "validation_candidates_sha256": None,
            "refit": True,
            "num_items": whole.num_items,
            "fitted_until": whole.cutoff_timestamp,
            "updated_from": UpdatedFrom(
                dataset_fingerprint=old.record.dataset_fingerprint,
                weights_sha256=tensors_sha256(old.model.tensors()),  # type: ignore[union-attr]
                steps_share=steps_share,
            ),
        }
    )
    fitting = SystemFit(
        system,
        record,
        old.config,
        FitParts(whole, whole, None),
        on_progress,
        _warm_start(system, old, source, steps_share),
    )
    item_ids, item_counts = whole.item_ids, whole.train.item_counts
    place: AbstractContextManager[Target | None] = nullcontext()
    if target_path is not None:
        place = training_directory(
            target_path, record, item_ids, item_counts, resume=not in_place, overwrite=in_place
        )
    with StopSignals() as stop, place as target:
        if target is None:
            fitted = fitting.run(stop, None, resume=False)
        elif target.is_finished:
            fitted = load_run(target.directory, device=device).model
        else:
            fitted = fitting.run(stop, target.directory, resume=target.is_continued)
    return Run(target_path, record, old.config, fitted, item_ids, item_counts)


def _open(run: str | Path | Run) -> tuple[Run, Path | None]:
    """Load a finished run, and return it with its directory."""
    path = run.path if isinstance(run, Run) else run
    if isinstance(run, Run) and path is None:
        return run, None
    directory = Path(path)  # type: ignore[arg-type]
    # An update that is finished but was killed before it took its place takes it now.
    tidy(directory)
    if has_run(directory) and not is_finished(directory):
        raise RunError(
            f"{directory}: found an unfinished run; finish it with `metatl train --out {directory} --resume`"
        )
    return load_run(directory), directory


def _same_directory(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _check_holds_the_rows_of(old: Run, interactions: Interactions, whole: ColdStartSplit) -> None:
    """Refuse a log that lacks rows of the run, such as one of the new rows only."""
    items = whole.train.find_items(old.item_ids)
    counts = np.where(items >= 0, whole.train.item_counts[items], 0)
    # Items that have become too rare to be kept are counted in the log itself.
    lost = interactions.find_items(old.item_ids)
    counts = np.where((items < 0) & (lost >= 0), interactions.item_counts[lost], counts)
    missing = np.flatnonzero((counts < old.item_counts) | (items < 0))
    if len(missing):
        first = int(missing[0])
        raise DataError(
            f"item {id_text(old.item_ids[first])}: found {counts[first]} rows, but the run was fitted on "
            f"{old.item_counts[first]}, and so for {len(missing)} of {len(old.item_ids)} items; expected the "
            "whole log, old rows included: give all rows, or fit anew with `metatl train --all-data`"
        )


def _warm_start(system: System, old: Run, directory: Path | None, share: float) -> WarmStart | None:
    if system.batches is None:
        return None
    from metatl.training.warm_start import WarmStart

    last_step = int(getattr(old.config, "max_steps"))  # noqa: B009
    if directory is not None:
        _, weights_record = load_checkpoint(directory / "best.safetensors")
        last_step = int(weights_record["step"])
    return WarmStart(
        old.model.tensors(),  # type: ignore[union-attr]
        old.item_ids,
        old.record.fitted_until,
        last_step - max(1, round(share * last_step)),
        last_step,
    )
