"""The search for settings: by validation MRR, equally many trials, resumable."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl.main import main
from metatl.exceptions import ConfigError, RunError
from metatl.experiments import tuning
from metatl.experiments.search_spaces import SEARCH_SPACES, OneOf, Real, Whole
from metatl.experiments.tuned_settings import TunedSettings, read_tuned_settings
from metatl.experiments.tuning import Search, tune
from metatl.models import SYSTEMS
from metatl.runs.metrics_file import read_metrics
from metatl.runs.run_directory import SplitSettings
from metatl.training.fit import configure
from metatl.training.stop_signals import TrainingStopped
from planted_data import write_ring


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return write_ring(tmp_path_factory.mktemp("data") / "ring.csv")


def search(ring, model="markov", trials=4, seed=0, k=3):
    return Search(model, str(ring), SplitSettings(k=k), seed, trials)


def trials_seen(monkeypatch):
    """What is fitted, trial by trial."""
    seen, fit = [], tuning.fit

    def watching(*arguments, **options):
        seen.append(dict(options["config"]))
        return fit(*arguments, **options)

    monkeypatch.setattr(tuning, "fit", watching)
    return seen


@pytest.mark.parametrize("model", SEARCH_SPACES)
def test_spaces_are_of_the_systems_and_hold_their_presets(model):
    config = configure(SYSTEMS[model], "tuned", {}, k=3).model_dump(mode="json")
    for name, values in SEARCH_SPACES[model].items():
        if isinstance(values, OneOf):
            assert config[name] in values.values
            edges = values.values
        else:
            assert isinstance(values, (Real, Whole))
            assert values.low <= config[name] <= values.high
            edges = (values.low, values.high)
        for value in edges:
            configure(SYSTEMS[model], "tuned", {name: value}, k=3)


def test_the_best_is_that_of_validation_and_can_be_fitted_again(ring, tmp_path, monkeypatch):
    seen = trials_seen(monkeypatch)
    found = tune(search(ring), tmp_path, device="cpu")
    assert len(seen) == found.trials == 4
    # The first trial is the preset: the search never ends below it.
    preset = configure(SYSTEMS["markov"], "tuned", {}, k=3).model_dump()
    assert seen[0] == {name: preset[name] for name in SEARCH_SPACES["markov"]}
    mrrs = []
    for number, config in enumerate(seen):
        out = tmp_path / f"again{number}"
        metatl.fit(ring, model="markov", config=config, k=3, out=out, device="cpu")
        mrrs.append(read_metrics(out)["MRR"])
    assert found.validation_mrr == max(mrrs)
    assert found.config == seen[mrrs.index(max(mrrs))]
    content = TunedSettings.model_validate_json((tmp_path / "markov.best.json").read_bytes())
    assert content == found
    assert read_tuned_settings(tmp_path) == {("markov", found.dataset_fingerprint): found.config}
    assert not (tmp_path / "markov.trial").exists()


def test_a_search_goes_on_where_it_stopped(ring, tmp_path, monkeypatch):
    seen = trials_seen(monkeypatch)
    tune(search(ring, trials=5), tmp_path / "whole", device="cpu")
    whole = list(seen)
    seen.clear()
    tune(search(ring, trials=2), tmp_path / "parts", device="cpu")
    tune(search(ring, trials=2), tmp_path / "parts", device="cpu")
    assert len(seen) == 2
    tune(search(ring, trials=5), tmp_path / "parts", device="cpu")
    assert seen == whole
    assert len({json.dumps(config) for config in whole}) == 5
    # Other settings are another search, whose result would take the place of this one's.
    before = (tmp_path / "parts" / "markov.best.json").read_bytes()
    for other in (search(ring, trials=1, seed=1), search(ring, trials=1, k=2)):
        with pytest.raises(ConfigError, match=r"markov\.best\.json: found .* K = 3 and seed 0 chose"):
            tune(other, tmp_path / "parts", device="cpu")
    assert (tmp_path / "parts" / "markov.best.json").read_bytes() == before
    assert len(seen) == 5


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), TrainingStopped(15, 3), SystemExit(1)])
def test_an_interrupted_trial_is_tried_again_and_counts_once(ring, tmp_path, monkeypatch, error, number):
    seen, fit = [], tuning.fit

    def stopping(*arguments, **options):
        seen.append(dict(options["config"]))
        if len(seen) == number:
            raise error
        return fit(*arguments, **options)

    monkeypatch.setattr(tuning, "fit", stopping)
    # Of SystemExit Optuna hears as little as of a kill: the trial is left running.
    with pytest.raises(type(error)):
        tune(search(ring, trials=3), tmp_path, device="cpu")
    found = tune(search(ring, trials=3), tmp_path, device="cpu")
    assert seen[number - 1] == seen[number]
    assert (len(seen), found.trials) == (4, 3)


def test_a_failed_trial_counts(ring, tmp_path, monkeypatch):
    calls, fit = [], tuning.fit

    def failing(*arguments, **options):
        calls.append(options)
        if len(calls) % 2:
            raise RunError("the training loss is nan")
        return fit(*arguments, **options)

    monkeypatch.setattr(tuning, "fit", failing)
    found = tune(search(ring, trials=4), tmp_path, device="cpu")
    assert (len(calls), found.trials) == (4, 4)
    monkeypatch.setattr(tuning, "fit", lambda *_, **__: (_ for _ in ()).throw(RunError("nan")))
    with pytest.raises(ConfigError, match="all 2 trials of markov failed: nan"):
        tune(search(ring, trials=2), tmp_path / "none", device="cpu")


def test_what_cannot_be_tuned(ring, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="'popularity' has nothing to tune"):
        tune(search(ring, model="popularity"), tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = CliRunner().invoke(
        main, ["tune", "--data", str(ring), "--model", "knn", "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert result.stderr.strip() == (
        "Error: optuna is not installed, expected it; install metatl[tune] or optuna"
    )
    assert not (tmp_path / "out").exists()


def test_the_command(ring, tmp_path):
    options = ["--data", str(ring), "--model", "knn", "--model", "markov", "--trials", "2", "--k", "2"]
    result = CliRunner().invoke(main, ["tune", *options, "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("after 2 trials") == 2
    command = next(line for line in result.stdout.splitlines() if "--model markov" in line)
    # The printed command fits what was found.
    arguments = [*command.split()[1:], "--out", str(tmp_path / "run"), "--device", "cpu"]
    trained = CliRunner().invoke(main, arguments)
    assert trained.exit_code == 0, trained.output
    found = json.loads((tmp_path / "out" / "markov.best.json").read_text())
    assert read_metrics(tmp_path / "run")["MRR"] == found["validation_mrr"]
    assert found["k"] == 2
