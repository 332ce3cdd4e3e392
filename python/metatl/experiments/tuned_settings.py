"""The results of `metatl tune`, as files that `metatl reproduce --configs` reads.

One JSON file for each system and data set: the fields that differ from the preset `tuned`, and the data of
the search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from metatl.common.files import write_json
from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_ENDING = ".best.json"


class TunedSettings(BaseModel):
    """The best settings of a search.

    Attributes
    ----------
    model, preset : str
        The system, and the preset that `config` differs from.
    config : dict of str to Any
        Fields and values, as `metatl train --set` takes them.
    validation_mrr : float
        MRR on validation users, which the search maximises.
    trials : int
        Number of settings that were tried, including those that failed.
    data : str
        The data of the search.
    dataset_fingerprint : str
        Their fingerprint.
    k, seed : int
        K, and the seed of the search.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    preset: str
    config: dict[str, Any]
    validation_mrr: float
    trials: int
    data: str
    dataset_fingerprint: str
    k: int
    seed: int


def write_tuned_settings(out: Path, settings: TunedSettings) -> Path:
    """Write the result of a search and return the file."""
    path = out / f"{settings.model}{_ENDING}"
    write_json(path, settings.model_dump(mode="json"))
    return path


def check_tuned_settings(out: Path, model: str, *, dataset_fingerprint: str, k: int, seed: int) -> None:
    """Refuse to replace the result of another search of the system.

    Raises
    ------
    ConfigError
        If `out` holds settings that were tried on other data, another K or another seed.
    """
    path = out / f"{model}{_ENDING}"
    if not path.exists():
        return
    held = _read(path)
    if (held.dataset_fingerprint, held.k, held.seed) != (dataset_fingerprint, k, seed):
        raise ConfigError(
            f"{path}: found what a search on {held.data} with K = {held.k} and seed {held.seed} chose; "
            "choose another --out"
        )


def read_tuned_settings(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the results of searches.

    Parameters
    ----------
    path : Path
        The directory that `metatl tune --out` wrote, or a parent of several such directories.

    Returns
    -------
    dict
        (system, fingerprint of the data) to the fields that differ from the preset `tuned`.

    Raises
    ------
    ConfigError
        If there is no file, one is not written by `metatl tune`, or two are of one system and data set.
    """
    configs: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted(path.rglob(f"*{_ENDING}")):
        settings = _read(file)
        key = settings.model, settings.dataset_fingerprint
        if key in configs:
            raise ConfigError(f"{file}: found a second search of {settings.model} on the same data; keep one")
        configs[key] = settings.config
    if not configs:
        raise ConfigError(f"{path}: found no file that ends in {_ENDING}; expected what `metatl tune` wrote")
    return configs


def _read(file: Path) -> TunedSettings:
    try:
        return TunedSettings.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{file}: {error.errors()[0]['msg']}; tune again") from None
