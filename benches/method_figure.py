"""One task of MetaTL in two dimensions: support, inner step, query.

    python benches/method_figure.py docs/method-figure.svg

draws the figure of docs/method.md. The item vectors and the weights are chosen so that the picture is clear;
the inner step is Eq. 4, computed by examples/metatl_in_plain_torch.py, with a large rate to make it visible.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from metatl.evaluation.report.plots import svg

EXAMPLE = Path(__file__).parents[1] / "examples" / "metatl_in_plain_torch.py"
RATE = 0.06
NAMES = ("i_1", "i_2", "i_3", "i_4", "i_2'", "i_3'", "i_4'")
SEQUENCE, NEGATIVES = torch.arange(4), torch.arange(4, 7)  # indices into NAMES
ITEMS = [[0.1, 0.1], [0.95, 0.3], [1.45, 1.1], [2.35, 1.45], [0.3, 1.0], [1.75, 0.35], [1.55, 1.95]]
WEIGHT = [[0.3, -0.4, 0.2, 0.1], [-0.2, 0.3, 0.1, 0.3]]
BIAS = [0.0, -0.1]
ITEM, NEGATIVE, TRANSITION, FAINT = "#1b5e9c", "#b03a2e", "#d98200", "#9a9a9a"


def load_example() -> Any:
    """Import the example by its path."""
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arrow(axes: Any, start: Any, end: Any, colour: str, width: float = 1.8) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def line(axes: Any, start: Any, end: Any, colour: str) -> None:
    axes.plot(*zip(start, end, strict=True), color=colour, lw=1.3, ls=(0, (2, 2)), zorder=1)


def label(axes: Any, text: str, point: Any, colour: str, offset: tuple[float, float] = (0, 8)) -> None:
    axes.annotate(
        f"${text}$", point, offset, textcoords="offset points", color=colour, ha="center", fontsize=11
    )


def points(axes: Any, items: Any, which: list[int]) -> None:
    """Mark items and name them below, negatives as crosses."""
    for index in which:
        colour = ITEM if index < len(SEQUENCE) else NEGATIVE
        marker = "o" if index < len(SEQUENCE) else "X"
        axes.plot(*items[index], marker=marker, ms=8, color=colour, ls="none", zorder=3)
        label(axes, NAMES[index], items[index], colour, (-10, 6) if index == 2 else (0, -16))


def draw() -> Figure:
    """Draw the three panels."""
    example = load_example()
    example.ALPHA = RATE
    before = example.Theta(*map(torch.tensor, (WEIGHT, BIAS, ITEMS)))
    history, own = SEQUENCE[:-1], NEGATIVES[:-1]
    after = example.adapt(before, history, own)
    old, new = before.items.tolist(), after.items.tolist()
    tr, moved_tr = (example.user_transition(theta, history).tolist() for theta in (before, after))

    figure = Figure(figsize=(12, 4.3), layout="constrained")
    support, step, query = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes in (support, step, query):
        axes.set(xlim=(-0.15, 2.6), ylim=(-0.3, 2.2), aspect="equal", xticks=[], yticks=[])

    for axes, items, transition, name in ((support, old, tr, "tr"), (step, new, moved_tr, "tr\\,'")):
        for head, tail, negative in ((0, 1, 4), (1, 2, 5)):
            end = [items[head][0] + transition[0], items[head][1] + transition[1]]
            line(axes, end, items[tail], ITEM)
            line(axes, end, items[negative], NEGATIVE)
            arrow(axes, items[head], end, TRANSITION)
            middle = [(start + stop) / 2 for start, stop in zip(items[head], end, strict=True)]
            label(axes, name, middle, TRANSITION, (-11, 3))
        points(axes, items, [0, 1, 2, 4, 5])
    for index in (0, 1, 2, 4, 5):
        step.plot(*old[index], marker="o", ms=6, mfc="none", mec=FAINT, ls="none", zorder=2)
        arrow(step, old[index], new[index], FAINT, 1.2)

    point = [new[2][0] + moved_tr[0], new[2][1] + moved_tr[1]]
    for index in (0, 1):
        query.plot(*new[index], marker="o", ms=6, color=FAINT, ls="none")
        label(query, NAMES[index], new[index], FAINT, (0, -16))
    line(query, point, new[3], ITEM)
    line(query, point, new[6], NEGATIVE)
    arrow(query, new[2], point, TRANSITION)
    query.plot(*point, marker="*", ms=15, color=TRANSITION, ls="none", zorder=4)
    label(query, "i_3 + tr\\,'", point, TRANSITION, (26, 12))
    points(query, new, [2, 3, 6])

    support.set_title("1. Support: transitions (Eq. 1, 2) and loss (Eq. 3)", fontsize=11)
    step.set_title("2. Inner step on learner and items (Eq. 4)", fontsize=11)
    query.set_title("3. Query: rank by distance (Eq. 5)", fontsize=11)
    captions = {
        support: "arrows: the transition tr\nblue: $s^+$, to the next item; red: $s^-$, to a negative",
        step: "grey: the moves of the items, for this user only\nblue distances shrink, red ones grow",
        query: "star: the query point, which ranks all items\ntraining compares the target $i_4$ with $i_4'$",
    }
    for axes, caption in captions.items():
        axes.set_xlabel(caption, fontsize=9)
    return figure


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(svg(draw()))
