"""Compare sampled, corrected and full metrics of several systems on the bundled wines.

    python benches/corrected_figure.py docs/evaluation-figure.svg

draws the figure of docs/evaluation.md and prints its table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import metatl
from metatl import datasets
from metatl.evaluation.evaluate_runs import rank_users
from metatl.evaluation.measures import Measures, RankedUsers, Ranking, measure
from metatl.evaluation.report.plots import svg
from metatl.metrics.rank_metrics import parse_metrics

SYSTEMS = ("popularity", "markov", "session-knn", "knn", "metatl")
NEGATIVES = (10, 20, 50, 100, 200, 400)
METRIC = "NDCG@10"
WAYS = {"sampled": "sampled", "unbiased_rank": "unbiased rank", "bias_variance": "bias-variance"}


def measure_system(name: str, split: metatl.ColdStartSplit) -> tuple[dict[tuple[str, int], float], float]:
    """Fit a system; return its estimates by (kind, negatives) and the metric in the full catalogue."""
    model = metatl.fit("wines", model=name, device="cpu").model
    others = split.num_items - split.cold.lengths[split.test]
    measures = Measures(parse_metrics(METRIC))
    estimates, full = {}, 0.0
    for n in NEGATIVES:
        sets = metatl.sample_candidate_sets(split, split.test, n=n)
        ranked = rank_users(model, split, split.test, sets.candidates)
        users = RankedUsers(
            user_ids=split.cold.user_ids[split.test],
            sampled=Ranking(ranked.sampled, np.full(len(others), n)),
            full=Ranking(ranked.full, others),
            catalogue_negatives=others,
        )
        report = measure(users, measures)
        estimates["sampled", n] = report.sampled[METRIC].value
        for way, values in report.corrected.items():
            estimates[way, n] = values[METRIC].value
        full = report.full[METRIC].value
    return estimates, full


def main(path: Path) -> None:
    """Draw the figure and print the table."""
    split = metatl.SplitSettings().split(datasets.xwines())
    found = {name: measure_system(name, split) for name in SYSTEMS}
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (way, title) in zip(figure.subplots(1, len(WAYS)), WAYS.items(), strict=True):
        for number, (name, (estimates, full)) in enumerate(found.items()):
            axes.plot(
                NEGATIVES, [estimates[way, n] for n in NEGATIVES], "o-", ms=4, color=f"C{number}", label=name
            )
            axes.axhline(full, ls=":", lw=1, color=f"C{number}")
        axes.set_xscale("log")
        axes.set_xticks(NEGATIVES, [str(n) for n in NEGATIVES])
        axes.minorticks_off()
        axes.set_title(title)
        axes.set_xlabel("negatives (dotted: all items)")
    figure.axes[0].set_ylabel(METRIC)
    figure.axes[0].legend()
    path.write_bytes(svg(figure))
    print(f"| system | {METRIC} of | " + " | ".join(str(n) for n in NEGATIVES) + " | all items |")
    print("|---|---|" + "---:|" * (len(NEGATIVES) + 1))
    for name, (estimates, full) in found.items():
        for way, title in WAYS.items():
            cells = " | ".join(f"{estimates[way, n]:.4f}" for n in NEGATIVES)
            print(f"| {name} | {title} | {cells} | {full:.4f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
