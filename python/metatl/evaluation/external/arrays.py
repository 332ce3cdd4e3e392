"""Arrays of any library, and `.npy` files, as arrays of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metatl.data.frames import refuse_masked
from metatl.data.readers.opened_files import refuse_damage
from metatl.data.readers.regular_files import check_file
from metatl.exceptions import ArgumentTypeError, DataError

if TYPE_CHECKING:
    import os


def as_array(argument: str, values: Any) -> np.ndarray:
    """Take an array or a tensor as an array of NumPy, of the same values.

    Parameters
    ----------
    argument : str
        The name of the argument, for errors.
    values : ndarray or torch.Tensor
        The array. A tensor may be on any device and part of a graph; bfloat16 becomes float32, which holds
        all of its values.

    Returns
    -------
    ndarray
        The same values.

    Raises
    ------
    ArgumentTypeError
        If it is neither, or is sparse or masked.
    """
    refuse_masked(argument, values)
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    module = type(values).__module__.partition(".")[0]
    if module == "torch" and hasattr(values, "detach"):
        if str(values.layout) != "torch.strided":
            raise _sparse(argument, values)
        tensor = values.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    if hasattr(values, "tocsr") or hasattr(values, "todense"):
        raise _sparse(argument, values)
    raise ArgumentTypeError(f"{argument}: found {type(values).__name__}, expected an array or a tensor")


def _sparse(argument: str, values: Any) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"{argument}: found a sparse {type(values).__name__}, expected a dense array: what it leaves out "
        "has no value of its own; make it dense with the value that is meant"
    )


def load_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Map an `.npy` file into memory.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    ndarray
        The array, read-only.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file is damaged or holds Python objects.
    """
    check_file(path)
    with refuse_damage("an array of NumPy"):
        try:
            array = np.load(Path(path), mmap_mode="r", allow_pickle=False)
        except (EOFError, OSError) as error:
            # NumPy gives these to files of another format too.
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"found a damaged array, or none of numpy's ({reason})") from None
    if not isinstance(array, np.ndarray):
        raise DataError("found an archive of arrays, expected one array in an .npy file")
    return array
