"""Settings of the test run: threads, Triton, and the number of examples of property tests.

The default run tries 1,000 examples per property and skips tests that are marked `slow` or `faults`.
`pytest -m slow` runs the former, and property tests with 100,000 examples. See also `property_settings.py`.
"""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# The tests' tensors are small: torch's threads would cost more than they save, and wait for each other on a
# busy machine. Set before torch is imported; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a CUDA device Triton interprets its kernels; it reads this variable when it is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

hypothesis.settings.register_profile(
    "default",
    max_examples=1_000,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "slow", parent=hypothesis.settings.get_profile("default"), max_examples=100_000
)


def _wants(config: pytest.Config, marker: str) -> bool:
    expression = config.getoption("markexpr", "")
    return marker in expression and f"not {marker}" not in expression


def pytest_configure(config: pytest.Config) -> None:
    # Background jobs of a shell ignore SIGINT, and subprocesses would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.load_profile("slow" if _wants(config, "slow") else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _wants(config, "slow") and hypothesis.is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.slow)
        for marker in ("slow", "faults"):
            if item.get_closest_marker(marker) is not None and not _wants(config, marker):
                item.add_marker(pytest.mark.skip(reason=f"run with `-m {marker}`"))
