"""Train SASRec of RecBole for some epochs; report the seconds and the learned positions.

    .venv-peers-torch/bin/python benches/peers/recbole_sasrec_step.py FOLDER SETTINGS_AS_JSON

prints one line of JSON. FOLDER is the output of `export.py`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

from recbole.data import create_dataset
from recbole.data.utils import get_dataloader
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

from exchange import Exchange
from recbole_gru4rec import NAME, make_config, write_atomic_file


def main() -> None:
    exchange, settings = Exchange.read(Path(sys.argv[1]).resolve()), json.loads(sys.argv[2])
    epochs = settings.pop("epochs")
    with tempfile.TemporaryDirectory() as name:
        # RecBole leaves logs in the folder where it runs.
        os.chdir(name)
        folder = Path(name)
        write_atomic_file(exchange, folder / NAME)
        config = make_config(exchange, {**settings, "epochs": epochs}, folder, "SASRec")
        init_seed(exchange.seed, reproducibility=True)
        dataset = create_dataset(config)
        rows, _, _ = dataset.build()
        loader = get_dataloader(config, "train")(config, rows, None, shuffle=True)
        trainer = Trainer(config, SASRec(config, loader.dataset))
        seconds = []
        for epoch in range(epochs):
            begin = time.perf_counter()
            trainer._train_epoch(loader, epoch)  # noqa: SLF001 (its `fit` also validates and saves)
            seconds.append(time.perf_counter() - begin)
        # Back, so that the folder can go.
        os.chdir("/")
    record = {"version": metadata.version("recbole"), "places": len(loader.dataset), "seconds": min(seconds)}
    print(json.dumps(record))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    main()
