"""Fit a system on a split, or choose its steps there and fit it on every row, and write the run's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from metatl.ranking.rank import candidate_metrics
from metatl.runs.checkpoints import CheckpointFiles, save_checkpoint
from metatl.runs.metrics_file import FitReport, write_metrics
from metatl.training.selection import Selection, read_selection, write_selection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit
    from metatl.models import System
    from metatl.models.contract import Model
    from metatl.runs.run_directory import RunRecord
    from metatl.training.fit_parts import FitParts
    from metatl.training.outer_loop import Progress
    from metatl.training.stop_signals import StopSignals
    from metatl.training.warm_start import WarmStart


@dataclass(frozen=True)
class SystemFit:
    """What is fitted, and on what.

    Attributes
    ----------
    system : System
        The system.
    record : RunRecord
        The settings of the run.
    config : BaseModel
        The system's config.
    parts : FitParts
        The rows.
    on_progress : callable or None
        Called after every training step.
    warm_start : WarmStart, optional
        The weights that the fit on every row starts from, and its steps; then no steps are chosen.
    """

    system: System
    record: RunRecord
    config: Any
    parts: FitParts
    on_progress: Callable[[Progress], None] | None
    warm_start: WarmStart | None = None

    def run(self, stop: StopSignals, directory: Path | None, *, resume: bool) -> Model:
        """Fit the system, and write its weights and metrics.

        Parameters
        ----------
        stop : StopSignals
            An entered context, which tells of signals.
        directory : Path or None
            The run directory; None writes nothing.
        resume : bool
            Continue what is in the directory.

        Returns
        -------
        FactorisedModel, PairwiseModel or ScoringModel
            The fitted model.

        Raises
        ------
        MetatlError
            If the system cannot be fitted.
        TrainingStopped
            After Ctrl-C, SIGTERM or SIGHUP, once a checkpoint is saved.
        """
        parts, files = self.parts, None if directory is None else CheckpointFiles(directory)
        log_folder = None if directory is None else directory / "tensorboard"
        if not self.record.refit:
            model, _ = self._fit(parts.final, parts.candidates, stop, files, log_folder, resume=resume)
            stop.wait_for_step()  # only the files are left to write
            metrics = record = _metrics(model, parts)
            report = None
        else:
            selection = self._select(stop, directory, log_folder, resume=resume)
            # The steps of the training on the split are in the log already.
            further_log = log_folder if parts.candidates is None else None
            model, _ = self._fit(
                parts.final, None, stop, files, further_log, last_step=selection.steps, resume=resume
            )
            stop.wait_for_step()
            # Without the metrics of the split, the file depends on the rows only.
            metrics, record = selection.validation, {}
            report = self._report(selection)
        if directory is not None:
            if self.system.batches is None:
                save_checkpoint(directory / "best.safetensors", model.tensors(), record)
            # Written last: its presence means that the run is finished.
            write_metrics(directory, metrics, report)
        return cast("Model", model)

    def _select(
        self, stop: StopSignals, directory: Path | None, log_folder: Path | None, *, resume: bool
    ) -> Selection:
        """Choose the steps on the split, or read which ones an interrupted call has chosen."""
        parts = self.parts
        if self.warm_start is not None and self.system.batches is not None:
            return Selection(steps=self.warm_start.last_step, validation={})
        if parts.candidates is None:
            return Selection(steps=getattr(self.config, "max_steps", None), validation={})
        files = None if directory is None else CheckpointFiles(directory, "split-")
        selection = read_selection(directory) if directory is not None and resume else None
        if selection is None:
            model, steps = self._fit(
                parts.chosen_on, parts.candidates, stop, files, log_folder, resume=resume
            )
            selection = Selection(steps=steps, validation=_metrics(model, parts))
            if directory is not None:
                write_selection(directory, selection)
        if files is not None:
            files.remove_weights()
        return selection

    def _fit(
        self,
        split: ColdStartSplit,
        candidates: CandidateSets | None,
        stop: StopSignals,
        files: CheckpointFiles | None,
        log_folder: Path | None,
        *,
        last_step: int | None = None,
        resume: bool,
    ) -> tuple[Any, int | None]:
        """Fit on the training users of a split; return the model and the step of its weights."""
        if self.system.batches is None:
            return self.system.model_class().fit(split.train, self.config), None
        import torch

        from metatl.training.item_start import start_items
        from metatl.training.outer_loop import train

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.record.seed)
            model = self.system.model_class().for_training(self.config, split.train)
        warm_start = self.warm_start
        state = train(
            model,
            self.system.batches,
            split,
            candidates,
            config=self.config,
            seed=self.record.seed,
            device=self.record.device,
            stop=stop,
            first_step=0 if warm_start is None else warm_start.first_step,
            last_step=last_step,
            start=start_items if warm_start is None else warm_start.start,
            compiled=self.record.compiled,
            files=files,
            log_folder=log_folder,
            resume=resume,
            on_progress=self.on_progress,
        )
        return model, state.best_step

    def _report(self, selection: Selection) -> FitReport:
        train = self.parts.final.train
        steps, chosen_by = selection.steps, selection.chosen_by
        if steps is not None and self.warm_start is not None:
            steps -= self.warm_start.first_step
            chosen_by = f"the last of the {selection.steps} steps of the run that is updated"
        elif steps is not None and self.parts.candidates is None:
            chosen_by = "the preset's length, no validation"
        return FitReport(
            steps=steps,
            chosen_by=chosen_by,
            rows=train.num_interactions,
            users=train.num_users,
            items=train.num_items,
        )


def _metrics(model: Any, parts: FitParts) -> dict[str, float]:
    if parts.candidates is None:
        return {}
    return candidate_metrics(model, parts.chosen_on, parts.candidates)
