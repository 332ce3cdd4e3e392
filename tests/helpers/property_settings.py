"""Settings of property tests that differ from the default in `conftest.py`."""

from hypothesis import HealthCheck, settings

# A case takes milliseconds in torch, scipy or polars; a case of a kernel takes microseconds.
COSTLY_CASES = settings(max_examples=3 * settings().max_examples // 10)
"""300 examples in the default run, 30,000 with `-m slow`; `conftest.py` has loaded the profile before."""

IN_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""Every case overwrites the files of the previous one."""
