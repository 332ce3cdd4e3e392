"""Write the input of the peers: the training rows of a cold-start split, and new users with candidates."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from exchange import PARTS
from metatl import datasets
from metatl.data.candidates import sample_candidate_sets
from metatl.runs.run_directory import SplitSettings

if TYPE_CHECKING:
    from metatl.data.split import ColdStartSplit

NEGATIVES = 100


def export(split: ColdStartSplit, folder: Path, *, data: str, seed: int) -> None:
    """Write an exchange folder.

    Parameters
    ----------
    split
        The split.
    folder
        Where to; made if it is not there. Results of peers for other rows or candidates are refused.
    data
        The source, as :func:`metatl.datasets.load` reads it.
    seed
        Seed of the candidates and of the trainings.
    """
    sets = {
        part: sample_candidate_sets(split, getattr(split, part), n=NEGATIVES, seed=seed) for part in PARTS
    }
    record = {
        "data": datasets.source(data),
        "k": split.k,
        "seed": seed,
        "num_items": split.num_items,
        "num_train_users": split.train.num_users,
        "num_train_rows": split.train.num_interactions,
        "split_fingerprint": split.fingerprint,
        **{f"{part}_candidates_sha256": sets[part].sha256 for part in PARTS},
    }
    path = folder / "exchange.json"
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in record if name != "data" and held.get(name) != record[name]]
        if changed:
            raise SystemExit(
                f"{folder}: holds another split ({', '.join(changed)}); delete it or name another"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"user": split.train.users, "item": split.train.items, "timestamp": split.train.timestamps}
    pl.DataFrame(rows).write_parquet(folder / "train.parquet")
    for part in PARTS:
        np.save(folder / f"{part}_histories.npy", split.histories(sets[part].users))
        np.save(folder / f"{part}_candidates.npy", sets[part].candidates)
    # The last file to be written: it says that the folder is whole.
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="wines, or the path of an interactions file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    split = SplitSettings(k=arguments.k).split(datasets.load(arguments.data, None))
    export(split, arguments.folder, data=arguments.data, seed=arguments.seed)


if __name__ == "__main__":
    main()
