"""Train on the bundled wine ratings, compare with simple systems and recommend wines to new customers.

`make demo` runs this file.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import metatl
from metatl.cli.progress import training_progress

RUNS = Path("runs/demo")
K = 3
SAMPLED = ("HR@1", "HR@10", "NDCG@10", "MRR")
FULL = ("HR@10", "MRR")
SYSTEMS = (
    ("Popularity", "popularity", {}),
    ("Item-kNN", "knn", {}),
    ("MetaTL−−", "metatl", {"inner_steps": 0}),  # without the inner step
    ("MetaTL", "metatl", {}),
)


def compare(console: Console) -> metatl.Run:
    """Fit and evaluate every system; return the run of the last one, MetaTL."""
    table = Table(title=f"X-Wines, customers after their first {K} wines")
    table.add_column("among:\nsystem", no_wrap=True)
    for among, columns in (("100", SAMPLED), ("all", FULL), ("", ("seconds",))):
        for column in columns:
            table.add_column(f"{among}\n{column}", justify="right", no_wrap=True)
    for title, model, config in SYSTEMS:
        console.print(f"fitting {title}")
        start = time.perf_counter()
        out = RUNS / title.split()[0].lower().replace("−", "-")
        with training_progress(console) as update:
            run = metatl.fit(
                "wines", model=model, config=config, k=K, out=out, overwrite=True, on_progress=update
            )
        report = metatl.evaluate(run)
        table.add_row(
            title,
            *(f"{report.metrics.sampled[name].value:.3f}" for name in SAMPLED),
            *(f"{report.metrics.full[name].value:.3f}" for name in FULL),
            f"{time.perf_counter() - start:.0f}",
        )
    console.print(table)
    console.print("The next wine is ranked among 100 random ones, and among all.\n")
    return run


def recommend(run: metatl.Run, console: Console, customers: int = 3) -> None:
    """Show the first wines of new customers and the recommendations for them."""
    wines = metatl.datasets.xwines()
    names = metatl.datasets.item_names()
    split = run.record.split.split(wines)
    for user in split.test[:customers]:
        history = [split.cold.item_ids[int(item)] for item in split.histories([user])[0]]
        console.print(f"[bold]New customer {split.cold.user_ids[int(user)]}[/] tried")
        for item in history:
            console.print(f"    {names[item]}")
        console.print("  and may like")
        for recommendation in metatl.recommend(run, [history], top=5)[0]:
            console.print(f"    {names[recommendation.item_id]}")


if __name__ == "__main__":
    screen = Console()
    recommend(compare(screen), screen)
