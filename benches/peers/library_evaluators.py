"""Evaluate given scores with the evaluators of RecBole and RecTools, and time them.

It runs in the peers' environment; `evaluators.py` calls it. Both libraries get the scores in the form in
which their own models return them, so that only the evaluation is timed:

- RecBole: as in its trainer with the mode `uni100`, in batches of 4,096 pairs. The scores go into a row of
  the catalogue that is filled with minus infinity, the collector takes the top items, the evaluator
  averages.
- RecTools: `calc_metrics` gets a data frame of user, item and rank, and one of the targets. Its models rank
  the scores themselves; here a sort in numpy ranks them, and its time counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator
from rectools import Columns
from rectools.metrics import MRR, NDCG, HitRate, calc_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS_IN_A_BATCH = 4096  # RecBole's `eval_batch_size`


def recbole(scores: np.ndarray, items: np.ndarray, num_items: int) -> Callable[[], dict[str, float]]:
    given, sys.argv = sys.argv, sys.argv[:1]
    try:
        config = Config(
            model="BPR",
            dataset="none",
            config_dict={
                "metrics": ["Hit", "NDCG", "MRR"],
                "topk": [1, 10, scores.shape[1]],
                "valid_metric": "MRR@10",
                "eval_args": {"mode": "uni100"},
                "metric_decimal_place": 12,
                "use_gpu": False,
                "state": "ERROR",
            },
        )
    finally:
        sys.argv = given
    users_in_a_batch = max(PAIRS_IN_A_BATCH // scores.shape[1], 1)
    values, columns = torch.from_numpy(scores), torch.from_numpy(items)

    def evaluate() -> dict[str, float]:
        collector, evaluator = Collector(config), Evaluator(config)
        for begin in range(0, len(values), users_in_a_batch):
            block = values[begin : begin + users_in_a_batch]
            picked = columns[begin : begin + users_in_a_batch]
            rows = torch.arange(len(block))
            filled = torch.full((len(block), num_items), -torch.inf)
            filled[rows.repeat_interleave(block.shape[1]), picked.ravel()] = block.ravel()
            collector.eval_batch_collect(filled, None, rows, picked[:, 0])
        found = evaluator.evaluate(collector.get_data_struct())
        last = scores.shape[1]
        names = {"MRR": f"mrr@{last}", "HR@1": "hit@1", "HR@10": "hit@10", "NDCG@10": "ndcg@10"}
        return {ours: float(found[theirs]) for ours, theirs in names.items()}

    return evaluate


def rectools(scores: np.ndarray, items: np.ndarray, num_items: int) -> Callable[[], dict[str, float]]:
    del num_items
    count, width = scores.shape
    truth = pd.DataFrame({Columns.User: np.arange(count), Columns.Item: items[:, 0]})
    metrics = {
        "MRR": MRR(k=width),
        "HR@1": HitRate(k=1),
        "HR@10": HitRate(k=10),
        "NDCG@10": NDCG(k=10, divide_by_achievable=True),
    }

    def evaluate() -> dict[str, float]:
        order = np.argsort(-scores, axis=1, kind="stable")
        lists = pd.DataFrame(
            {
                Columns.User: np.repeat(np.arange(count), width),
                Columns.Item: np.take_along_axis(items, order, axis=1).ravel(),
                Columns.Rank: np.tile(np.arange(1, width + 1), count),
            }
        )
        found = calc_metrics(metrics, lists, interactions=truth)
        return {name: float(value) for name, value in found.items()}

    return evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", help=".npy, float32 (users, 1 + n), the target first")
    parser.add_argument("items", help=".npy, int64, the same shape")
    parser.add_argument("--num-items", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    scores, items = np.load(arguments.scores), np.load(arguments.items)
    results = {}
    for make in (recbole, rectools):
        evaluate = make(scores, items, arguments.num_items)
        seconds, found = [], {}
        for _ in range(arguments.rounds):
            begin = time.perf_counter()
            found = evaluate()
            seconds.append(time.perf_counter() - begin)
        version = metadata.version(make.__name__)
        results[make.__name__] = {"version": version, "seconds": min(seconds), "metrics": found}
    print(json.dumps(results))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
