"""Settings of the properties that are not like those of a kernel, which get what `conftest.py` says."""

from hypothesis import HealthCheck, settings

# A case costs milliseconds of torch, scipy or polars where one of a kernel costs microseconds.
COSTLY_CASES = settings(max_examples=3 * settings().max_examples // 10)
"""300 in the default run and 30,000 with `-m slow`, whose profile `conftest.py` has loaded by now."""

IN_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""Every case writes over the files of the one before."""
