"""A kill, a full disk or a failing call at any point: nothing is lost, and the same command continues."""

import errno
import itertools
import os
import subprocess
import sys

import pytest

from faulty_commands import Action, Fault
from kill_scenarios import Tally, differences, faults_of, judge

SCENARIOS = (
    "train", "train_counting", "train_all_data", "resume", "overwrite", "update", "export", "candidates",
    "scores", "recommend", "reproduce",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "reproduce"])
def test_a_spread_of_faults(scenarios, name, tmp_path):
    scenario, tally = scenarios[name], Tally()
    calls = len(scenario.calls)
    for point, action in enumerate((Action.KILL, Action.KILL_HALFWAY, Action.FAIL_FROM_THEN_ON, Action.KILL)):
        fault = Fault((2 * point + 1) * calls // 8 + 1, action, errno.ENOSPC if "FAIL" in action.name else 0)
        problems, _ = judge(scenario, scenarios.server, tmp_path.resolve() / "work", fault)
        tally.add(problems, (fault,), scenario.calls[fault.call - 1])
    assert tally.bad == 0, str(tally)


def test_two_kills_of_overwrite(scenarios, tmp_path):
    scenario = scenarios["overwrite"]
    calls = len(scenario.calls)
    faults = [Fault(share * calls // 8, Action.KILL) for share in (6, 5)]
    problems, _ = judge(scenario, scenarios.server, tmp_path.resolve() / "work", *faults)
    assert problems == []


@pytest.mark.faults
def test_a_child_of_the_server_does_what_a_new_process_does(scenarios, tmp_path):
    scenario = scenarios["train"]
    command = [sys.executable, "-m", "metatl.cli.metatl.main", *scenario.command(tmp_path)[1:]]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert differences(tmp_path, scenario.reference) == []


@pytest.mark.faults
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("kind", ["kills", "failing calls"])
def test_every_fault(scenarios, name, kind, tmp_path, capsys):
    scenario, tally = scenarios[name], Tally()
    for call in itertools.count(1):
        line = scenario.calls[call - 1] if call <= len(scenario.calls) else "?"
        faults = [fault for fault in faults_of(call, line) if (fault.error == 0) == (kind == "kills")]
        came_about = False
        for fault in faults:
            problems, fired = judge(scenario, scenarios.server, tmp_path.resolve() / "work", fault)
            if fired:
                came_about = True
                tally.add(problems, (fault,), line)
        if not came_about:
            break
    with capsys.disabled():
        sys.stdout.write(f"\n{name}, {kind}: {tally}\n")
    assert tally.bad == 0
    assert tally.points >= len(scenario.calls)


@pytest.mark.faults
def test_two_kills_of_overwrite_anywhere(scenarios, tmp_path, capsys):
    scenario, tally = scenarios["overwrite"], Tally()
    calls = len(scenario.calls)
    for call in range(1, calls + 1):
        faults = Fault(call, Action.KILL), Fault(call * 7 % calls + 1, Action.KILL)
        problems, _ = judge(scenario, scenarios.server, tmp_path.resolve() / "work", *faults)
        tally.add(problems, faults, scenario.calls[call - 1])
    with capsys.disabled():
        sys.stdout.write(f"\noverwrite, two kills: {tally}\n")
    assert tally.bad == 0
