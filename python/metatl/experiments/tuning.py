"""Search for the settings of a system by its MRR on validation users.

Every system gets the same number of trials; the first one is its preset `tuned`. A trial that fails, for
example because a training diverges, counts as a trial. Test users are never looked at.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metatl import datasets
from metatl.exceptions import ConfigError, MetatlError
from metatl.experiments.search_spaces import SEARCH_SPACES, OneOf, Whole
from metatl.experiments.tuned_settings import (
    TunedSettings,
    check_tuned_settings,
    write_tuned_settings,
)
from metatl.models import find_system
from metatl.runs.metrics_file import read_metrics
from metatl.training.fit import configure, fit
from metatl.training.stop_signals import TrainingStopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from metatl.data.interactions import Interactions
    from metatl.experiments.search_spaces import Range
    from metatl.runs.run_directory import SplitSettings

_PRESET = "tuned"


@dataclass(frozen=True)
class Search:
    """The system to tune, the data, and the number of trials.

    Attributes
    ----------
    model : str
        The system.
    data : str
        `wines`, or the path of a file.
    split : SplitSettings
        How the data are split.
    seed : int
        Seed of the fits and of the search.
    trials : int
        Number of settings to try, including those of earlier calls.
    """

    model: str
    data: str
    split: SplitSettings
    seed: int
    trials: int


def tune(
    search: Search,
    out: Path,
    *,
    device: str = "auto",
    on_trial: Callable[[int, float | None], None] | None = None,
) -> TunedSettings:
    """Search for the settings of one system, or continue an earlier search.

    Parameters
    ----------
    search : Search
        The search.
    out : Path
        Folder of the search (`trials.log`, one for all systems) and of its result.
    device : str
        `auto`, `cpu` or `cuda`.
    on_trial : callable, optional
        Called after each trial with the number of trials that are done and the best validation MRR.

    Returns
    -------
    TunedSettings
        The best settings; they are also written to `out`.

    Raises
    ------
    ConfigError
        If Optuna is not installed, the system has no search space, or all trials failed.
    """
    if search.model not in SEARCH_SPACES:
        raise ConfigError(f"model: {search.model!r} has nothing to tune; {', '.join(SEARCH_SPACES)} have")
    optuna = _import_optuna()
    system = find_system(search.model)
    space = SEARCH_SPACES[search.model]
    interactions = datasets.load(search.data)
    check_tuned_settings(
        out,
        search.model,
        dataset_fingerprint=interactions.fingerprint,
        k=search.split.k,
        seed=search.seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    study = _open_study(optuna, search, out, interactions.fingerprint)
    _forget_unfinished(study, optuna)
    if not study.trials:
        preset = configure(system, _PRESET, {}, k=search.split.k).model_dump(mode="json")
        study.enqueue_trial({name: preset[name] for name in space})

    failures: list[str] = []

    def objective(trial: Trial) -> float:
        config = _suggest(trial, space)
        try:
            return _validation_mrr(search, config, interactions, out, device)
        except (TrainingStopped, KeyboardInterrupt):
            # Otherwise Optuna counts the trial as failed.
            _take_back(study, trial.number, trial.params)
            raise
        except MetatlError as error:
            failures.append(str(error))
            raise

    while (done := _count(study, optuna)) < search.trials:
        # The seed depends on the number of finished trials: a continued search draws new settings, and the
        # same settings as a search that was not interrupted.
        study.sampler = optuna.samplers.TPESampler(seed=(search.seed * 1_000_003 + done) % 2**32)
        study.optimize(objective, n_trials=1, catch=(MetatlError,))
        if on_trial is not None:
            on_trial(done + 1, _best_value(study, optuna))
    if _best_value(study, optuna) is None:
        reason = f": {failures[0]}" if failures else ""
        raise ConfigError(f"model: all {search.trials} trials of {search.model} failed{reason}")
    best = study.best_trial
    settings = TunedSettings(
        model=search.model,
        preset=_PRESET,
        config=best.params,
        validation_mrr=study.best_value,
        trials=_count(study, optuna),
        data=datasets.source(search.data),
        dataset_fingerprint=interactions.fingerprint,
        k=search.split.k,
        seed=search.seed,
    )
    write_tuned_settings(out, settings)
    return settings


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("optuna is not installed, expected it; install metatl[tune] or optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _open_study(optuna: Any, search: Search, out: Path, fingerprint: str) -> Study:
    backend = optuna.storages.journal.JournalFileBackend(str(out / "trials.log"))
    split = search.split.model_dump(mode="json")
    # Other data, another split or another seed is another search.
    name = f"{search.model} {fingerprint} {split} seed {search.seed}"
    study: Study = optuna.create_study(
        study_name=name,
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize",
        load_if_exists=True,
    )
    return study


def _forget_unfinished(study: Study, optuna: Any) -> None:
    """Take back the trials during which an earlier call was killed."""
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            _take_back(study, trial.number, trial.params)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _take_back(study: Study, number: int, params: Mapping[str, Any]) -> None:
    """Do not count an interrupted trial, and try its settings again."""
    study.set_user_attr(f"interrupted {number}", value=True)
    study.enqueue_trial(dict(params))


def _done(study: Study, optuna: Any) -> list[FrozenTrial]:
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL)
    return [
        trial
        for trial in study.trials
        if trial.state in finished and f"interrupted {trial.number}" not in study.user_attrs
    ]


def _count(study: Study, optuna: Any) -> int:
    return len(_done(study, optuna))


def _best_value(study: Study, optuna: Any) -> float | None:
    values = [trial.value for trial in _done(study, optuna) if trial.value is not None]
    return max(values, default=None)


def _suggest(trial: Trial, space: Mapping[str, Range]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, OneOf):
            config[name] = trial.suggest_categorical(name, values.values)
        elif isinstance(values, Whole):
            config[name] = trial.suggest_int(name, values.low, values.high, log=values.log)
        else:
            config[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
    return config


def _validation_mrr(
    search: Search, config: Mapping[str, Any], interactions: Interactions, out: Path, device: str
) -> float:
    # The run directory of a trial is not kept.
    directory = out / f"{search.model}.trial"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        fit(
            interactions,
            model=search.model,
            preset=_PRESET,
            config=config,
            split=search.split,
            seed=search.seed,
            out=directory,
            device=device,
        )
        mrr = read_metrics(directory)["MRR"]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return mrr if math.isfinite(mrr) else 0.0
