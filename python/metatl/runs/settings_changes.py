"""The settings in which a run differs from another one: a run is continued with its own settings only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metatl.exceptions import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from metatl.runs.run_directory import RunRecord

# They may differ: the device, the place of the data (their content is compared), what follows from the rest,
# and the format of run.json.
_FREE = ("device", "data", "fitted_until", "format_version")


def changes(before: RunRecord, now: RunRecord | Mapping[str, Any]) -> list[str]:
    """List the settings that differ, such as ``seed was 0, now 7``.

    Parameters
    ----------
    before : RunRecord
        The settings of the run.
    now : RunRecord or mapping of str to object
        Other settings, or some fields of a record as JSON values.
    """
    old = _flatten(before.model_dump(mode="json"))
    new = _flatten(now if not hasattr(now, "model_dump") else now.model_dump(mode="json"))
    return [f"{name} was {old.get(name)}, now {new[name]}" for name in new if old.get(name) != new[name]]


def refuse_changes(
    directory: Path, before: RunRecord, now: RunRecord | Mapping[str, Any], *, advice: str = ""
) -> None:
    """Refuse to continue a run with other settings than its own.

    Parameters
    ----------
    directory : Path
        The run directory, for the error.
    before, now : RunRecord or mapping
        See :func:`changes`.
    advice : str
        What else to do, for the error.

    Raises
    ------
    RunError
        If a setting differs.
    """
    differences = changes(before, now)
    if differences:
        raise RunError(
            f"{directory}: cannot be continued with other settings: {'; '.join(differences)}"
            + (f"; {advice}" if advice else "")
        )


def _flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """Map the name of every setting to its value; those of the split and the config are not nested."""
    settings = {name: value for name, value in record.items() if name not in _FREE}
    for name in ("columns", "null_values"):
        if settings.get(name) is not None:
            settings[name] = list(settings[name])
    for name in ("split", "config"):
        settings.update(settings.pop(name, {}))
    return settings
