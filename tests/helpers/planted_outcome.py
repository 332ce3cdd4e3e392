"""The outcome of a grid made from given ranks, without running it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from metatl.experiments.outcome import TIDY_SCHEMA, Outcome
from metatl.metrics.names import DEFAULT_METRICS
from metatl.metrics.rank_metrics import mean_metrics


def planted(ranks, *, dataset="ring", k=3, failures=()):
    """Make an outcome from {row: {seed: (sampled ranks, full ranks)}}, with the same users in every list."""
    records, frames = [], {}
    for row, of_seeds in ranks.items():
        for seed, of_rankings in of_seeds.items():
            parts = []
            for ranking, values in zip(("sampled", "full"), of_rankings, strict=True):
                greater = np.array(values, np.int64) - 1
                means = mean_metrics(greater, np.zeros_like(greater), metrics=DEFAULT_METRICS)
                shared = {
                    "dataset": dataset, "row": row, "system": "knn", "preset": "tuned", "config": "{}",
                    "k": k, "seed": seed, "ranking": ranking, "test_users": len(values), "fit_seconds": 1.0,
                    "processor_seconds": 1.0,
                    "evaluation_seconds": 1.0, "candidates_sha256": f"{seed}", "dataset_fingerprint": "0",
                    "metatl_version": "0",
                }  # fmt: skip
                records += [
                    {**shared, "metric": metric, "value": value, "low": value - 0.05, "high": value + 0.05}
                    for metric, value in means.items()
                ]
                users = [f"u{user}" for user in range(len(values))]
                parts.append(
                    pl.DataFrame({"user_id": users, "ranking": ranking, "rank": np.array(values, float)})
                )
            frames[dataset, row, k, seed] = pl.concat(parts)
    return Outcome(pl.DataFrame(records, schema=TIDY_SCHEMA), frames, list(failures))


def as_json(report):
    """The report's data after a round trip through JSON."""
    return json.loads(json.dumps(report.data))
