"""Kernels called with arguments that are wrong in one to three places: a typed error, or a result that
does not depend on the number of threads, and never a panic."""

import json
import subprocess
import sys

import pytest

import hostile_calls


def check(seed, seconds):
    """Call kernels for some seconds in a process of their own, which a fault would end."""
    done = subprocess.run(
        [sys.executable, hostile_calls.__file__, str(seed), str(seconds)],
        capture_output=True,
        text=True,
        timeout=120 + 2 * seconds,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"
    outcomes = json.loads(done.stdout)
    print(outcomes)  # noqa: T201 (the counts)
    # All kinds of outcomes, or the calls would all fail for the same reason.
    assert {"returned", "InvalidArgumentError", "ArgumentTypeError", "MemoryError"} <= outcomes.keys()


def test_a_hostile_call_is_a_typed_error_or_right():
    check(seed=0, seconds=8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_hostile_calls_are_typed_errors_or_right(seed):
    check(seed, seconds=120)
