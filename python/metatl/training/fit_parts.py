"""The rows that a fit chooses its steps on, and the rows that it is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metatl.data.split import hold_nothing_out
from metatl.data.timestamps import from_date
from metatl.exceptions import EmptySplitError, InvalidArgumentError, NoNegativeError
from metatl.training.selection import validation_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from metatl.data.candidates import CandidateSets
    from metatl.data.interactions import Interactions
    from metatl.data.split import ColdStartSplit
    from metatl.runs.run_directory import SplitSettings


@dataclass(frozen=True, eq=False)
class FitParts:
    """The rows of a fit.

    Attributes
    ----------
    chosen_on : ColdStartSplit
        The cold-start split, whose validation users choose the steps; without validation, `final`.
    final : ColdStartSplit
        The split whose training rows the run is fitted on: the same one, or for a fit on every row
        :func:`metatl.data.split.hold_nothing_out`.
    candidates : CandidateSets or None
        Candidates of the validation users; None without validation.
    """

    chosen_on: ColdStartSplit
    final: ColdStartSplit
    candidates: CandidateSets | None


def divide(
    interactions: Interactions,
    settings: SplitSettings,
    *,
    refit: bool,
    validation: bool,
    seed: int,
    on_data: Callable[[Interactions, ColdStartSplit], None] | None = None,
) -> FitParts:
    """Divide the interactions as a fit needs them.

    Parameters
    ----------
    interactions : Interactions
        The interactions of all users.
    settings : SplitSettings
        How to split.
    refit, validation : bool
        See :func:`metatl.fit`.
    seed : int
        Seed of the candidates.
    on_data : callable, optional
        Called with the interactions and their split.

    Returns
    -------
    FitParts
        The parts.

    Raises
    ------
    EmptySplitError
        If validation is asked for and there are no training users or no validation users.
    NoNegativeError
        If every validation user has had every item.
    DataError
        If no item is left.
    InvalidArgumentError
        If a share is out of its range, or without validation the cutoff is not after the last row.
    """
    whole = None
    if refit or not validation:
        whole = hold_nothing_out(interactions, k=settings.k, min_item_count=settings.min_item_count)
        if not validation:
            _check_cutoff(settings, whole)
            if on_data is not None:
                on_data(interactions, whole)
            return FitParts(whole, whole, None)
    try:
        split = settings.split(interactions)
        if on_data is not None:
            on_data(interactions, split)
        candidates = validation_candidates(split, seed)
    except (EmptySplitError, NoNegativeError) as error:
        raise type(error)(
            f"{error}; or fit on every row without validation (--no-validation; in Python, validation=False)"
        ) from None
    return FitParts(split, split if whole is None else whole, candidates)


def refuse_reading(**arguments: Any) -> None:
    """Refuse arguments that say how data is read where it is read already.

    Parameters
    ----------
    **arguments
        Values by name; None where none was given.

    Raises
    ------
    InvalidArgumentError
        If one is given.
    """
    for name, value in arguments.items():
        if value is not None:
            raise InvalidArgumentError(
                f"{name}: found {value!r} with Interactions, expected None; only a file or a table is read"
            )


def refuse_unused(refit: bool | None, split: Mapping[str, Any]) -> None:
    """Refuse arguments of a fit without validation that would have no effect.

    Parameters
    ----------
    refit : bool or None
        As given to :func:`metatl.fit`.
    split : mapping of str to object
        The settings of the split that were given.

    Raises
    ------
    InvalidArgumentError
        If one is given.
    """
    if refit is False:
        raise InvalidArgumentError("refit: found False with validation=False, which fits on every row")
    for name in ("cutoff_quantile", "min_train_rows", "validation_share"):
        if name in split:
            raise InvalidArgumentError(
                f"{name}: found {split[name]} without validation, where every row is fitted on; leave it out"
            )


def _check_cutoff(settings: SplitSettings, whole: ColdStartSplit) -> None:
    """Refuse a cutoff that would hold rows out; one after the last row holds out nothing."""
    if settings.cutoff is not None and from_date(settings.cutoff) < whole.cutoff_timestamp:
        raise InvalidArgumentError(
            f"cutoff: found {settings.cutoff}, but there are rows until {whole.cutoff:%Y-%m-%d}, and without "
            "validation every row is fitted on; leave it out, or give a later day"
        )
