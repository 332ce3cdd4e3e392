"""Checks of the arguments of public functions."""

from __future__ import annotations

from difflib import get_close_matches
from numbers import Integral
from typing import TYPE_CHECKING, Any

from metatl.exceptions import ArgumentTypeError, ConfigError, InvalidArgumentError, MetatlError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


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


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """Suggest the choice that a wrong value is close to, as the end of an error message.

    Parameters
    ----------
    value : object
        What was found.
    choices : iterable of str
        What would be right.

    Returns
    -------
    str
        ``"; did you mean 'x'?"``, or nothing where no choice is close.
    """
    known = list(choices)
    lower = {choice.lower(): choice for choice in known}
    close = get_close_matches(str(value).lower(), lower, n=1, cutoff=0.7)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def check_choice(
    argument: str,
    value: object,
    choices: Iterable[str],
    error: type[MetatlError] = InvalidArgumentError,
) -> None:
    """Raise an error unless the value is one of the choices.

    Parameters
    ----------
    argument : str
        Name of the argument, for the error.
    value : object
        What was found.
    choices : iterable of str
        The values that are right.
    error : type, optional
        The type of the error.

    Raises
    ------
    MetatlError
        Of the type `error`. It lists the choices and suggests one that is close.
    """
    known = list(choices)
    if value not in known:
        hint = did_you_mean(value, known)
        raise error(f"{argument}: found {value!r}, expected one of {', '.join(known)}{hint}")


# What is expected, by the type of a problem of pydantic; `{}` stands for its limit.
_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of at most 64 bits",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "missing": "a value",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "one of {expected}",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "date_parsing": "a date, as in 2020-12-31",
    "date_from_datetime_parsing": "a date, as in 2020-12-31",
    "date_from_datetime_inexact": "a date without a time, as in 2020-12-31",
    "date_type": "a date, as in 2020-12-31",
}


def expected_by(problem: ErrorDetails) -> str:
    """Say in metatl's words what pydantic expected.

    Parameters
    ----------
    problem : dict
        One of `ValidationError.errors()`.

    Returns
    -------
    str
        Without the name of the field and without what was found, as in "expected a whole number".
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return "expected no such field"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind].format(**context)}"
    message = problem["msg"].removeprefix("Value error, ")
    return message.replace("Input should be", "expected").partition(", unable to")[0]


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
    reason = expected_by(first)
    if not first["loc"]:
        # A rule between several fields; its message names them.
        return ConfigError(reason)
    name = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{name}: found {first['input']!r}, {reason}")
