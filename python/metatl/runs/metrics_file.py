"""`metrics.json`: the validation metrics, and how a run that is fitted on every row was fitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metatl.common.arguments import expected_by
from metatl.common.files import write_json
from metatl.exceptions import RunError

if TYPE_CHECKING:
    from pathlib import Path


class FitReport(BaseModel):
    """How a run was fitted on every row; the part `fit` of its `metrics.json`.

    Attributes
    ----------
    steps : int or None
        Training steps; None for a system that is computed in one pass.
    chosen_by : str
        How this number was chosen.
    rows, users, items : int
        What the run was fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(ge=1)
    chosen_by: str
    rows: int = Field(ge=0)
    users: int = Field(ge=0)
    items: int = Field(ge=0)


def write_metrics(directory: Path, validation: dict[str, float], fit: FitReport | None = None) -> None:
    """Write `metrics.json`, whose presence means that the run is finished.

    Parameters
    ----------
    directory : Path
        The run directory.
    validation : dict of str to float
        Validation metrics by name; empty for a run without validation.
    fit : FitReport, optional
        Of a run that is fitted on every row; the validation metrics are then those of the fit on the split.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    content = {"validation": validation, **({} if fit is None else {"fit": fit.model_dump()})}
    write_json(directory / "metrics.json", content)


def read_metrics(path: Path) -> dict[str, float]:
    """Read the validation metrics of a finished run.

    Parameters
    ----------
    path : Path
        The run directory.

    Returns
    -------
    dict of str to float
        Values by the metric's name; empty for a run without validation.

    Raises
    ------
    FileNotFoundError
        If the run is not finished.
    RunError
        If the file is damaged.
    """
    file = path / "metrics.json"
    try:
        metrics = json.loads(file.read_bytes())["validation"]
        return {str(name): float(value) for name, value in metrics.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunError(f"{file}: found no metrics in JSON ({reason}); train again") from None


def read_fit_report(path: Path) -> FitReport:
    """Read how a finished run was fitted on every row.

    Parameters
    ----------
    path : Path
        The run directory.

    Returns
    -------
    FitReport
        The report.

    Raises
    ------
    FileNotFoundError
        If the run is not finished.
    RunError
        If the file is damaged, or the run is not fitted on every row.
    """
    file = path / "metrics.json"
    try:
        return FitReport.model_validate(json.loads(file.read_bytes())["fit"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, ("fit", *first["loc"])))
        raise RunError(f"{file}: field {field!r}: {expected_by(first)}; train again") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunError(f"{file}: found no report of the fit in JSON ({reason}); train again") from None
