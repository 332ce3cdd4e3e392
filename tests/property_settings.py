"""How many examples a property gets that is not about a kernel."""

from hypothesis import settings

# A case of a model costs milliseconds of torch or scipy where one of a kernel costs microseconds.
OF_A_MODEL = settings(max_examples=3 * settings().max_examples // 10)
"""300 in the default run and 30,000 with `-m slow`, whose profile `conftest.py` has loaded by now."""
