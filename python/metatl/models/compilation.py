"""Functions whose kernels torch.compile fuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from metatl.exceptions import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compile_function(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have torch.compile translate a function at its first call, for the shapes that it meets.

    Parameters
    ----------
    function : callable
        Of tensors.

    Returns
    -------
    callable
        Raises RunError where torch cannot translate it, for want of a compiler for example.
    """
    import torch
    from torch._dynamo.exc import TorchDynamoException  # the only name that its errors have in common

    # Dropout draws what it draws without compilation.
    compiled = torch.compile(function, dynamic=False, options={"fallback_random": True})

    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return compiled(*arguments, **options)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise RunError(f"compiled: torch.compile failed ({reason}); train without it") from error

    return run
