"""A training that is killed at any moment is finished, or replaced, by the next command.

The states are those before each file-system call that Python makes, so they include every order of files.
"""

from __future__ import annotations

import shutil

import pytest

import metatl
from kill_states import contents, recorded
from metatl.exceptions import RunError
from metatl.runs import replacement
from planted_data import ring

TRAINED = {"dim": 4, "batch_size": 16, "max_steps": 4, "eval_every": 2, "cross_fit_folds": 0}
SYSTEMS = {"popularity": {}, "bpr": TRAINED}
FILES = ("run.json", "metrics.json", "items.parquet", "best.safetensors", "last.safetensors", "history.json")
MINE = {"run/notes.txt": b"mine", "run/tensorboard/mine.txt": b"mine too"}


@pytest.fixture(scope="module")
def data():
    return ring(users=200, items=30)


def train(data, out, system="bpr", seed=1, **options):
    return metatl.fit(data, model=system, config=SYSTEMS[system], seed=seed, out=out, device="cpu", **options)


def files_of(run):
    return {name: (run / name).read_bytes() for name in FILES if (run / name).exists()}


def assert_clean(folder, *further):
    """There is one run, with nothing beside it and no file of the machinery in it."""
    names = {name for name in contents(folder) if "tfevents" not in name}
    expected = {f"run/{name}" for name in (*files_of(folder / "run"), "environment.json")}
    assert names == expected | set(further)


@pytest.fixture(params=["in one step", "by two renames"])
def exchange(request, monkeypatch):
    if request.param == "by two renames":
        monkeypatch.setattr(replacement, "_exchange_in_one_step", lambda *_: False)
    return request.param


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("resume", [False, True])
def test_a_killed_training_is_finished_by_the_next_command(data, tmp_path, system, resume):
    (tmp_path / "whole").mkdir()
    with recorded(tmp_path / "whole", tmp_path / "states") as states:
        train(data, tmp_path / "whole" / "run", system)
    expected = files_of(tmp_path / "whole" / "run")
    assert len(states) > 10
    assert_clean(tmp_path / "whole")
    for state in states:
        started = (state / "run" / "run.json").exists()
        if started and not resume:
            with pytest.raises(RunError, match="already holds a run; continue it with --resume"):
                train(data, state / "run", system)
        train(data, state / "run", system, resume=resume or started)
        assert files_of(state / "run") == expected, state
        assert_clean(state)


@pytest.fixture
def old(data, tmp_path):
    """A finished run with files of the user in it; its folder, and the files of the run."""
    folder = tmp_path / "folder"
    train(data, folder / "run", seed=0)
    for name, content in MINE.items():
        (folder / name).write_bytes(content)
    return folder, files_of(folder / "run")


def new_files(data, folder):
    train(data, folder / "fresh")
    return files_of(folder / "fresh")


def finish(data, folder, old_files, expected, *, resume):
    """Run the next command after a kill, and check where it ends."""
    train(data, folder / "run", resume=resume, overwrite=not resume, seed=None if resume else 1)
    found = files_of(folder / "run")
    assert found in ((expected, old_files) if resume else (expected,)), folder
    assert_clean(folder, *MINE)
    assert {name: (folder / name).read_bytes() for name in MINE} == MINE
    return found == expected


@pytest.mark.parametrize("resume", [False, True])
def test_a_killed_overwrite_is_finished_and_there_is_always_a_run(data, old, tmp_path, exchange, resume):
    folder, old_files = old
    expected = new_files(data, tmp_path)
    with recorded(folder, tmp_path / "states") as states:
        train(data, folder / "run", overwrite=True)
    assert files_of(folder / "run") == expected
    assert_clean(folder, *MINE)
    assert len(states) > 30
    outcomes = []
    for state in states:
        if (state / "run").exists():
            metatl.load_run(state / "run")
            assert files_of(state / "run") in (old_files, expected), state
        else:
            assert exchange == "by two renames"
            with pytest.raises(RunError, match=r"the run is in .*\.run\.new; .* --resume` puts it back"):
                metatl.load_run(state / "run")
        outcomes.append(finish(data, state, old_files, expected, resume=resume))
    # Once the new run was begun, --resume ends with it.
    assert outcomes == sorted(outcomes)
    assert outcomes.count(True) > 20


@pytest.mark.usefixtures("exchange")
@pytest.mark.parametrize("resume", [False, True])
def test_two_kills_in_a_row_lose_nothing(data, old, tmp_path, resume):
    folder, old_files = old
    expected = new_files(data, tmp_path)
    with recorded(folder, tmp_path / "states") as states:
        train(data, folder / "run", overwrite=True)
    for number, state in enumerate(states[3::12]):
        with recorded(state, tmp_path / f"again{number}") as again:
            finish(data, state, old_files, expected, resume=not resume)
        for second in again[number % 5 :: 9]:
            if (second / "run").exists():
                assert files_of(second / "run") in (old_files, expected), second
            finish(data, second, old_files, expected, resume=resume)


def test_an_overwrite_of_an_unfinished_run_keeps_it_until_the_new_one_is_finished(data, tmp_path):
    folder = tmp_path / "folder"
    train(data, folder / "run", seed=0)
    (folder / "run" / "metrics.json").unlink()
    before, expected = files_of(folder / "run"), new_files(data, tmp_path)
    with recorded(folder, tmp_path / "states") as states:
        train(data, folder / "run", overwrite=True)
    assert files_of(folder / "run") == expected
    for state in states[::3]:
        assert files_of(state / "run") in (before, expected)
        train(data, state / "run", overwrite=True)
        assert files_of(state / "run") == expected
        assert_clean(state)


def test_other_settings_begin_the_new_run_again(data, old, tmp_path):
    folder, old_files = old
    with recorded(folder, tmp_path / "states") as states:
        train(data, folder / "run", overwrite=True)
    begun = [state for state in states if (state / ".run.new" / "last.safetensors").exists()]
    train(data, tmp_path / "other", seed=2)
    for state in begun[::6]:
        folder = tmp_path / f"copy-{state.name}"
        shutil.copytree(state, folder)
        with pytest.raises(RunError, match=r"seed was [01], now 2"):
            train(data, folder / "run", seed=2, resume=True)
        assert files_of(folder / "run") in (old_files, files_of(tmp_path / "folder" / "run"))
        train(data, folder / "run", seed=2, overwrite=True)
        assert files_of(folder / "run") == files_of(tmp_path / "other")
        assert_clean(folder, *MINE)


def test_an_overwrite_of_version_0_1_0_that_was_killed_is_made_up_for(data, tmp_path):
    """It moved the files of the old run to `.previous` one by one, then began the new run in their place."""
    train(data, tmp_path / "old", seed=0)
    old_files, expected = files_of(tmp_path / "old"), new_files(data, tmp_path)
    names = ("metrics.json", "run.json", "environment.json", "items.parquet", *FILES[3:])
    for moved in range(2, len(names) + 1):
        run = tmp_path / f"moved-{moved}" / "run"
        shutil.copytree(tmp_path / "old", run)
        (run / ".previous").mkdir()
        for name in names[:moved]:
            (run / name).rename(run / ".previous" / name)
        if moved == len(names):
            shutil.copy(tmp_path / "fresh" / "items.parquet", run)
            with pytest.raises(RunError, match=r"the run is in .*/\.previous; .* puts it back"):
                metatl.load_run(run)
        train(data, run, seed=0, resume=True)
        assert files_of(run) == old_files
        assert_clean(run.parent)
    # The new run was begun: it is continued, and only then the old one goes.
    run = tmp_path / "begun" / "run"
    shutil.copytree(tmp_path / "fresh", run)
    (run / "metrics.json").unlink()
    shutil.copytree(tmp_path / "old", run / ".previous")
    train(data, run, resume=True)
    assert files_of(run) == expected
    assert_clean(run.parent)
