"""Compare systems with a baseline over the same users: differences, intervals and paired tests."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field
from scipy import stats

from metatl.common.arguments import whole_number
from metatl.common.files import replace_file
from metatl.evaluation.comparison.paired_users import pair_users
from metatl.evaluation.report.results import StrictReport
from metatl.metrics.names import TieRule  # noqa: TC001 (pydantic reads it)
from metatl.metrics.rank_metrics import CONFIDENCE, ordered_mean
from metatl.metrics.significance import (
    RESAMPLES,
    compare,
    effect_size,
    estimate_differences,
    holm,
    randomisation_p_values,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from metatl.evaluation.comparison.paired_users import Comparable, PairedUsers


class PValuesReport(StrictReport):
    """The p-value of a two-sided test, alone and corrected for the number of tests of its kind."""

    p: float
    holm: float = Field(description="bounds the chance of any false rejection in the report")
    benjamini_hochberg: float = Field(description="bounds the expected share of false rejections")


class SizeReport(StrictReport):
    """By how much a system differs from the baseline, by one metric in one ranking."""

    system: str
    ranking: str
    metric: str
    users: int
    baseline_mean: float
    mean: float
    difference: float = Field(description="mean of the users' differences: the system minus the baseline")
    low: float
    high: float
    effect_size: float | None = Field(
        description="Cohen's d_z: mean over standard deviation of the differences; null without a spread"
    )
    wins: float = Field(description="share of users for whom the system is better")
    ties: float
    losses: float


class DifferenceReport(SizeReport):
    """A system against the baseline, by one metric in one ranking, and whether it may be chance."""

    t: PValuesReport = Field(description="paired t test")
    wilcoxon: PValuesReport = Field(description="signed-rank test, zeros ranked as Pratt has it")
    randomisation: PValuesReport = Field(description="Fisher's randomisation test, by sign flips")


class ComparisonReport(StrictReport):
    """Systems compared with a baseline over the same users."""

    baseline: str
    systems: tuple[str, ...] = Field(description="what is compared with the baseline")
    rankings: tuple[str, ...]
    metrics: tuple[str, ...]
    differences: tuple[DifferenceReport, ...] = Field(
        description="one for each system, ranking and metric, in this order"
    )
    ties: TieRule
    candidates_sha256: str | None
    dataset_fingerprint: str | None
    tests: int = Field(description="tests of each kind, for which p-values are corrected")
    resamples: int = Field(description="of the bootstrap and of the randomisation test")
    confidence: float = Field(description="of the percentile bootstrap intervals")
    seed: int
    metatl_version: str


def compare_users(
    evaluations: Sequence[Comparable],
    *,
    metrics: Sequence[str] | str | None = None,
    ranking: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    num_threads: int | None = None,
) -> ComparisonReport:
    """Compare systems with a baseline, user by user.

    Parameters
    ----------
    evaluations : sequence of Evaluation or (PerUserRecord, polars.DataFrame)
        Two or more, the baseline first: what :func:`metatl.evaluate`, :func:`metatl.evaluate_scores`,
        :func:`metatl.evaluate_embeddings` and :func:`metatl.evaluate_lists` return, or
        :func:`metatl.evaluation.per_user_files.read_per_user` reads from a file.
    metrics : str or sequence of str, optional
        Names of metrics; by default the metrics that all evaluations have.
    ranking : {"sampled", "full", "corrected"}, optional
        The ranking; by default every ranking that all evaluations have.
    resamples : int
        Resamples of the bootstrap and of the randomisation test, at least 1.
    seed : int
        Seed of the bootstrap and of the randomisation test.
    num_threads : int, optional
        Threads of the kernels.

    Returns
    -------
    ComparisonReport
        It does not depend on the number of threads or the order of the rows.

    Raises
    ------
    InvalidArgumentError
        If one is not an evaluation, there are fewer than two, two systems have the same name, or `resamples`
        is less than 1.
    ConfigError
        If the name of a metric is not known.
    DataError
        If the evaluations are not of the same users, data, candidates and tie rule, or lack a metric or the
        ranking.
    """
    paired = pair_users(evaluations, metrics=metrics, ranking=ranking)
    return compare_pairs(paired, resamples=resamples, seed=seed, num_threads=num_threads)


def compare_pairs(
    paired: PairedUsers, *, resamples: int = RESAMPLES, seed: int = 0, num_threads: int | None = None
) -> ComparisonReport:
    """Compare systems with a baseline, given their paired users; see :func:`compare_users`."""
    resamples = whole_number("resamples", resamples, 1)
    sizes: list[SizeReport] = []
    p_values: list[_PValues] = []
    for system in paired.systems[1:]:
        for ranking in paired.rankings:
            sizes += _sizes(paired, system, ranking, resamples, seed, num_threads)
            p_values += _p_values(paired, system, ranking, resamples, seed, num_threads)
    return ComparisonReport(
        baseline=paired.systems[0],
        systems=paired.systems[1:],
        rankings=paired.rankings,
        metrics=paired.metrics,
        differences=tuple(
            DifferenceReport(**size.model_dump(), t=t, wilcoxon=wilcoxon, randomisation=randomisation)
            for size, t, wilcoxon, randomisation in zip(
                sizes, *map(_correct, zip(*p_values, strict=True)), strict=True
            )
        ),
        ties=paired.baseline.ties,
        candidates_sha256=paired.baseline.candidates_sha256,
        dataset_fingerprint=paired.baseline.dataset_fingerprint,
        tests=len(sizes),
        resamples=resamples,
        confidence=CONFIDENCE,
        seed=seed,
        metatl_version=metadata.version("metatl"),
    )


def comparison_schema() -> str:
    """Give the JSON schema of a comparison, as text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ComparisonReport.model_json_schema(),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_comparison(path: str | os.PathLike[str], report: ComparisonReport) -> None:
    """Write a comparison as JSON, in one step.

    Parameters
    ----------
    path : str or path-like
        File to write; replaced if it exists.
    report : ComparisonReport
        Its content.

    Raises
    ------
    OSError
        If the file cannot be written; the old file is kept then.
    """
    with replace_file(path) as temporary:
        temporary.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")


class _PValues(NamedTuple):
    t: float
    wilcoxon: float
    randomisation: float


def _sizes(
    paired: PairedUsers, system: str, ranking: str, resamples: int, seed: int, num_threads: int | None
) -> list[SizeReport]:
    """Measure by how much a system differs, metric by metric."""
    mine, baselines = paired.values[system, ranking], paired.values[paired.systems[0], ranking]
    differences = paired.differences(system, ranking)
    estimates = estimate_differences(mine, baselines, resamples=resamples, seed=seed, num_threads=num_threads)
    means, baseline_means = ordered_mean(mine), ordered_mean(baselines)
    return [
        SizeReport(
            system=system,
            ranking=ranking,
            metric=metric,
            users=len(differences),
            baseline_mean=float(baseline_means[column]),
            mean=float(means[column]),
            difference=estimates[column].value,
            low=estimates[column].low,
            high=estimates[column].high,
            effect_size=effect_size(differences[:, column]),
            wins=float(np.mean(differences[:, column] > 0)),
            ties=float(np.mean(differences[:, column] == 0)),
            losses=float(np.mean(differences[:, column] < 0)),
        )
        for column, metric in enumerate(paired.metrics)
    ]


def _p_values(
    paired: PairedUsers, system: str, ranking: str, resamples: int, seed: int, num_threads: int | None
) -> list[_PValues]:
    """Test whether a system differs, metric by metric."""
    differences = paired.differences(system, ranking)
    by_flips = randomisation_p_values(differences, resamples=resamples, seed=seed, num_threads=num_threads)
    by_theory = [compare(column, np.zeros(len(column))) for column in differences.T]
    return [
        _PValues(comparison.t_p, comparison.wilcoxon_p, float(p))
        for comparison, p in zip(by_theory, by_flips, strict=True)
    ]


def _correct(p_values: tuple[float, ...]) -> list[PValuesReport]:
    # `holm` refuses p-values outside [0, 1].
    corrected = zip(p_values, holm(p_values), stats.false_discovery_control(p_values).tolist(), strict=True)
    return [
        PValuesReport(p=p, holm=familywise, benjamini_hochberg=discovery)
        for p, familywise, discovery in corrected
    ]
