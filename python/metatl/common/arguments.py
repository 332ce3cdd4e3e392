"""Checks of what callers pass, for the functions that are called from outside."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from metatl.exceptions import ConfigError, InvalidArgumentError

if TYPE_CHECKING:
    from pydantic import ValidationError


def whole_number(argument: str, value: Any, least: int) -> int:
    """Take a whole number, of Python or NumPy, as an int.

    Parameters
    ----------
    argument
        Name of the argument, for the error.
    value
        What was passed.
    least
        The smallest that it can be.

    Raises
    ------
    InvalidArgumentError
        If it is smaller or no integer; True and 3.0 are none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InvalidArgumentError(
            f"{argument}: found {value!r}, expected a whole number of at least {least}"
        )
    return int(value)


def check_type(argument: str, value: Any, types: type | tuple[type, ...], expected: str) -> None:
    """Refuse what is of none of some types.

    Raises
    ------
    InvalidArgumentError
        That names the argument, the type that was found, and what was expected.
    """
    if not isinstance(value, types):
        raise InvalidArgumentError(f"{argument}: found {type(value).__name__}, expected {expected}")


def config_error(error: ValidationError) -> ConfigError:
    """Say in one line what pydantic found first."""
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        # A rule between fields: it names them itself.
        return ConfigError(reason)
    name = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{name}: found {first['input']!r}: {reason}")
