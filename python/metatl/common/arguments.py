"""Checks of the arguments of public functions."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from metatl.exceptions import ArgumentTypeError, ConfigError, InvalidArgumentError, MetatlError

if TYPE_CHECKING:
    from pydantic import ValidationError


def whole_number(argument: str, value: Any, least: int) -> int:
    """Return a whole number, of Python or NumPy, as an int.

    Parameters
    ----------
    argument : str
        The name of the argument, for the error.
    value : object
        The value that was passed.
    least : int
        The smallest value that is allowed.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ArgumentTypeError
        If the value is not an integer; True and 3.0 are not.
    InvalidArgumentError
        If the value is smaller than `least`.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        kind = InvalidArgumentError if is_integer else ArgumentTypeError
        raise kind(f"{argument}: found {value!r}, expected a whole number of at least {least}")
    return int(value)


def check_type(argument: str, value: Any, types: type | tuple[type, ...], expected: str) -> None:
    """Check that a value has one of some types.

    Parameters
    ----------
    argument : str
        The name of the argument, for the error.
    value : object
        The value that was passed.
    types : type or tuple of type
        The types that are allowed.
    expected : str
        A description of them, for the error.

    Raises
    ------
    ArgumentTypeError
        If the value has none of the types.
    """
    if not isinstance(value, types):
        raise ArgumentTypeError(f"{argument}: found {type(value).__name__}, expected {expected}")


def config_error(error: ValidationError) -> MetatlError:
    """Turn the first problem that pydantic reports into an error of one line.

    Parameters
    ----------
    error : pydantic.ValidationError
        The problems.

    Returns
    -------
    MetatlError
        The error that a validator raised, if it is one of metatl's; otherwise a ConfigError.
    """
    first = error.errors()[0]
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, MetatlError):
        return raised
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        # A rule between several fields; its message names them.
        return ConfigError(reason)
    name = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{name}: found {first['input']!r}: {reason}")
