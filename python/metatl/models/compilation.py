"""Compilation of training functions by torch.compile."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from metatl.exceptions import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compile_function(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function with torch.compile at its first call, and again for each new shape.

    Parameters
    ----------
    function : callable
        A function of tensors.

    Returns
    -------
    callable
        The compiled function. It raises `RunError` if torch cannot compile it, for example because no C++
        compiler is installed.
    """
    import torch
    from torch._dynamo.exc import TorchDynamoException  # the common base of its errors

    # With fallback_random, dropout draws the same random numbers as without compilation.
    compiled = torch.compile(function, dynamic=False, options={"fallback_random": True})

    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return compiled(*arguments, **options)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise RunError(f"compiled: torch.compile failed ({reason}); train without it") from error

    return run
