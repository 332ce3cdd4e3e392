"""Kernels whose arrays another thread writes to: an error or any result, but no panic, no id that does not
exist, and no read out of bounds, at every vector level of the processor."""

import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import writing_threads
from metatl import _metatl
from metatl.exceptions import InvalidArgumentError

SECONDS = 0.25
SECONDS_OF_THE_LONG_TEST = 20.0


def levels():
    """The vector levels of this processor, as an unknown one names them."""
    before = os.environ.get("METATL_SIMD")
    os.environ["METATL_SIMD"] = "unknown"
    try:
        _metatl.rank_scores(np.zeros((1, 1), np.float32))
    except InvalidArgumentError as error:
        return re.search(r"can run: (.*)$", str(error))[1].split(", ")
    finally:
        del os.environ["METATL_SIMD"]
        if before is not None:
            os.environ["METATL_SIMD"] = before
    raise AssertionError("an unknown level was taken")


GROUPS = [(level, list(writing_threads.AT_EVERY_LEVEL)) for level in levels()]
GROUPS += [("", list(writing_threads.AT_ONE_LEVEL))]


def check(level, kernels, seconds):
    """Call each kernel for some seconds in a process of their own, which a fault would end."""
    done = subprocess.run(
        [sys.executable, writing_threads.__file__, str(seconds), *kernels],
        env={**os.environ, "METATL_SIMD": level},
        capture_output=True,
        text=True,
        timeout=120 + 3 * seconds * len(kernels),
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"
    outcomes = dict(map(json.loads, done.stdout.splitlines()))
    print(outcomes)  # noqa: T201 (the counts)
    assert list(outcomes) == kernels
    assert all(sum(counts.values()) > 0 for counts in outcomes.values())


@pytest.mark.parametrize(("level", "kernels"), GROUPS)
def test_a_writing_thread_breaks_nothing(level, kernels):
    check(level, kernels, SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize(("level", "kernels"), GROUPS)
def test_a_writing_thread_breaks_nothing_for_long(level, kernels):
    check(level, kernels, SECONDS_OF_THE_LONG_TEST)


def test_every_kernel_that_takes_an_array_is_here():
    without = {"EpisodeSampler", "BatchSampler", "BatchPrefetcher", "available_threads", "look_up_ids"}
    without |= {"random_order"}
    here = {name.split(",")[0] for _, names in GROUPS for name in names}
    # A class or a function of the module that is new has to be added to one of the two.
    assert here | without == {name for name in dir(_metatl) if not name.startswith("_")}


def test_the_memory_of_a_borrowed_array_is_not_freed():
    """Numpy frees it if told not to count references, but not under a weak one."""
    script = """
        import sys, threading, time
        import numpy as np
        from metatl import _metatl

        queries, table = np.zeros((2000, 64), np.float32), np.zeros((100_000, 64), np.float32)
        excluded = np.zeros(2001, np.int64), np.zeros(0, np.int64)
        settings = {"item_bias": None, "similarity": "dot", "overrides": None, "num_threads": 1}
        refused = []

        def resize():
            while not refused:
                time.sleep(0.01)
                if started.is_set():
                    try:
                        table.resize((1, 1), refcheck=False)
                    except ValueError:
                        refused.append(True)
                    else:
                        return

        for items in (table, table[:]):
            started = threading.Event()
            thread = threading.Thread(target=resize)
            refused.clear()
            thread.start()
            started.set()
            _metatl.top_n(queries, items, 5, *excluded, **settings)
            thread.join()
            assert refused
        del items
        # Nothing is held after the call.
        table.resize((1, 1), refcheck=False)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
