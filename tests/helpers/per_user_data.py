"""Made-up per-user values of systems, in the form that an evaluation writes."""

import numpy as np
import polars as pl

from metatl.evaluation.per_user_files import PerUserRecord
from metatl.metrics.rank_metrics import parse_metrics, ranks, user_metrics

METRICS = ["MRR", "HR@1", "HR@10", "NDCG@10"]


def record_of(system, **changes):
    fields = {
        "system": system,
        "ties": "worst",
        "metrics": METRICS,
        "candidates_sha256": "ab" * 32,
        "dataset_fingerprint": "cd" * 32,
        "split_sha256": "12" * 32,
    }
    return PerUserRecord(**{**fields, **changes})


def frame_of(greater, *, equal=None, metrics=METRICS, ties="worst"):
    """A frame of users u0, u1, … from the counts of items above the target in each ranking."""
    parts = []
    for ranking, counts in greater.items():
        above = np.asarray(counts, np.int64)
        ties_with_target = np.zeros_like(above) if equal is None else np.asarray(equal, np.int64)
        values = user_metrics(above, ties_with_target, parse_metrics(metrics), ties=ties)
        columns = {
            "user_id": [f"u{user}" for user in range(len(above))],
            "ranking": [ranking] * len(above),
            "rank": ranks(above, ties_with_target, ties=ties),
            "greater": above,
            "equal": ties_with_target,
        }
        columns |= {metric: values[:, column] for column, metric in enumerate(metrics)}
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts)


def system(name, seed, users=40, **changes):
    """An evaluation of a system that ranks at random."""
    generator = np.random.default_rng(seed)
    greater = {"sampled": generator.integers(0, 20, users), "full": generator.integers(0, 90, users)}
    return record_of(name, **changes), frame_of(greater)
