"""The choice of the training steps on the cold-start split, for a run that is then fitted on every row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metatl.common.files import write_json
from metatl.data.candidates import sample_candidate_sets
from metatl.data.full_users import leave_out_full_users
from metatl.exceptions import EmptySplitError, NoNegativeError, RunError

if TYPE_CHECKING:
    from pathlib import Path

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit

VALIDATION_NEGATIVES = 100
_FEW_NEGATIVES = 0.1  # the quantile of the users' numbers of negatives that half of which a user must have


def validation_candidates(split: ColdStartSplit, seed: int) -> CandidateSets:
    """Draw the candidates by whose MRR weights, or steps, are chosen.

    Parameters
    ----------
    split : ColdStartSplit
        The split.
    seed : int
        Seed of the negatives.

    Returns
    -------
    CandidateSets
        100 negatives for each validation user, fewer in a small catalogue.

    Raises
    ------
    EmptySplitError
        If there is no validation user.
    NoNegativeError
        If every validation user has had every item.
    """
    if len(split.validation) == 0:
        raise EmptySplitError(
            f"found no validation users among {split.cold.num_users} new ones, expected at least one to "
            "select the weights by the MRR; raise validation_share, or choose an earlier cutoff"
        )
    try:
        return sample_candidate_sets(split, split.validation, n=VALIDATION_NEGATIVES, seed=seed)
    except NoNegativeError:
        # A small catalogue has fewer negatives. Selecting weights only compares MRRs on the same candidates.
        users = leave_out_full_users(split.cold, split.validation, "validation")
        # Users with very many items must not decide how few negatives all others get.
        left = split.num_items - split.cold.distinct_items[users]
        usual = min(VALIDATION_NEGATIVES, int(np.quantile(left, _FEW_NEGATIVES, method="lower")))
        users = leave_out_full_users(split.cold, users, "validation", negatives=(usual + 1) // 2)
        fewest = int((split.num_items - split.cold.distinct_items[users]).min())
        return sample_candidate_sets(split, users, n=min(VALIDATION_NEGATIVES, fewest), seed=seed)


class Selection(BaseModel):
    """The content of `selection.json`.

    Attributes
    ----------
    steps : int or None
        The steps with the best validation MRR; None for a system that is computed in one pass.
    validation : dict of str to float
        The validation metrics after these steps on the split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(ge=1)
    validation: dict[str, float]

    @property
    def chosen_by(self) -> str:
        """How the steps were chosen."""
        if self.steps is None:
            return "computed in one pass"
        return f"validation MRR at step {self.steps} of the cold-start split"


def write_selection(directory: Path, selection: Selection) -> None:
    """Write `selection.json`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    write_json(directory / "selection.json", selection.model_dump())


def read_selection(directory: Path) -> Selection | None:
    """Read `selection.json`; None if the steps are not chosen yet.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    file = directory / "selection.json"
    try:
        return Selection.model_validate(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValidationError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunError(f"{file}: found no choice of steps in JSON ({reason}); train again") from None
