"""What ranks would change if item tables were kept in fewer bits; write docs/item_precision.md.

    python benches/item_precision.py docs/item_precision.md wines NAME=PATH ...

Each data set gets a MetaTL `tuned`, fitted at K = 3. The test users of the split are then ranked with its
item table as it is, and with that table rounded to what a smaller format can hold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from scipy.stats import kendalltau

import metatl
from metatl.evaluation import rank_users
from metatl.files import write_text
from metatl.metrics import mean_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from metatl.models.contract import FactorisedModel

K, TOP = 3, 10

PAGE = """# Item tables in fewer bits

MetaTL `tuned`, K = {k}, fitted once on each data set; its item table is rounded to what a format can hold,
and the test users of the split are ranked again. Agreement is with the ranks of the table in `float32`.

{tables}
`int16` and `int8` have a scale for each item. Means hardly move, single ranks do: in eight bits a third to
two thirds of the users get another rank in the full catalogue. metatl keeps tables in `float32`. Where
processors are good at integers, full ranking and top N compare 16-bit integers first, and score those items
whose comparison the integers leave open: half the cost of a product, and no rank changes
(`rust/metatl-core/src/ranking/estimates/integers.rs`).

Regenerate with `python benches/item_precision.py docs/item_precision.md wines NAME=PATH …`.
"""

HEAD = """## {name}

{users:,} users, {items:,} items, d = {dim}.

{head}
|---|{rule}
"""


COLUMNS = (
    "bytes an item",
    "same rank of 101",
    "same rank, full",
    "largest change, full",
    "Kendall τ, full",
    f"same top {TOP}, as a set",
    "MRR of 101",
    "MRR, full",
)


def to_bfloat16(table: torch.Tensor) -> torch.Tensor:
    return table.to(torch.bfloat16).float()


def to_integers(largest: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Round each row to whole numbers up to `largest`, times a scale of its own."""

    def narrow(table: torch.Tensor) -> torch.Tensor:
        scale = (table.abs().amax(dim=1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)
        return (table / scale).round() * scale

    return narrow


class Format(NamedTuple):
    """A way to keep the numbers of a row."""

    name: str
    narrow: Callable[[torch.Tensor], torch.Tensor]
    bytes_a_number: int
    bytes_a_row: int


FORMATS = (
    Format("`float32`", lambda table: table, 4, 0),
    Format("`int16`", to_integers(2**15 - 1), 2, 4),
    Format("`bfloat16`", to_bfloat16, 2, 0),
    Format("`int8`", to_integers(2**7 - 1), 1, 4),
)


class Narrowed:
    """A model whose queries meet other item vectors than its own."""

    def __init__(self, model: FactorisedModel, table: torch.Tensor) -> None:
        self._model = model
        self.item_table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Ranked(NamedTuple):
    """Of each test user: rank among 101, rank in the catalogue, the best items; mean reciprocal ranks."""

    sampled: np.ndarray
    full: np.ndarray
    lists: np.ndarray
    sampled_mrr: float
    full_mrr: float


def rank(model: Any, split: metatl.ColdStartSplit, candidates: np.ndarray) -> Ranked:
    """Rank the test users."""
    ranks = rank_users(model, split, split.test, candidates, top=TOP)
    assert ranks.sampled is not None
    assert ranks.lists is not None
    return Ranked(
        ranks.sampled.greater + ranks.sampled.equal,
        ranks.full.greater + ranks.full.equal,
        np.sort(ranks.lists, axis=1),
        mean_metrics(*ranks.sampled)["MRR"],
        mean_metrics(*ranks.full)["MRR"],
    )


def table_of(name: str, data: str) -> str:
    """Fit on a data set, and compare the formats."""
    interactions = metatl.datasets.xwines() if data == "wines" else metatl.read_interactions(Path(data))
    run = metatl.fit(interactions, preset="tuned", k=K, seed=0, device="cpu")
    split = metatl.cold_start_split(interactions, k=K)
    candidates = metatl.sample_candidate_sets(split, split.test).candidates
    table = cast("FactorisedModel", run.model).item_table
    exact = None
    head = {"head": f"| item table | {' | '.join(COLUMNS)} |", "rule": "---:|" * len(COLUMNS)}
    lines = [HEAD.format(name=name, users=len(split.test), items=len(table), dim=table.shape[1], **head)]
    for form in FORMATS:
        found = rank(
            Narrowed(cast("FactorisedModel", run.model), form.narrow(table).contiguous()), split, candidates
        )
        exact = exact or found
        figures = (
            f"{form.bytes_a_number * table.shape[1] + form.bytes_a_row:,}",
            f"{(found.sampled == exact.sampled).mean():.2%}",
            f"{(found.full == exact.full).mean():.2%}",
            f"{np.abs(found.full - exact.full).max():,}",
            f"{kendalltau(found.full, exact.full).statistic:.5f}",
            f"{(found.lists == exact.lists).all(axis=1).mean():.2%}",
            f"{found.sampled_mrr:.5f}",
            f"{found.full_mrr:.5f}",
        )
        lines.append(f"| {form.name} | " + " | ".join(figures) + " |\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("data", nargs="+", help="wines, or NAME=PATH")
    arguments = parser.parse_args()
    tables = []
    for source in arguments.data:
        name, _, path = source.partition("=")
        tables.append(table_of(name, path or name))
    write_text(arguments.page, PAGE.format(k=K, tables="\n".join(tables)))


if __name__ == "__main__":
    main()
