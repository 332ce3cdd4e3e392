"""The names that the package and its commands share: tie rules, metrics, rankings, kinds of candidates.

This module imports nothing but `typing`, so that `--help` can show the names without waiting for numpy.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

TieRule: TypeAlias = Literal["worst", "mean", "best"]
"""The rank of the target among items with the same score: the last, any with equal chance, the first."""
TIE_RULES: tuple[TieRule, ...] = ("worst", "mean", "best")

DEFAULT_METRICS = ("MRR", "HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10")

DEFAULT_TOP = 10
"""Length of the lists whose coverage and popularity an evaluation reports."""

RankingName: TypeAlias = Literal["sampled", "full"]
"""What a target is ranked among: its sampled candidates, or all items of the catalogue."""
RANKINGS: tuple[RankingName, ...] = ("sampled", "full")

CandidateKind: TypeAlias = Literal["uniform", "popularity"]
"""How negatives are drawn."""
CANDIDATE_KINDS: dict[str, CandidateKind] = {"uni": "uniform", "pop": "popularity"}
"""The kinds by their names on the command line."""
