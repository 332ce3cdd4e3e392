"""A minute under load: eight clients, a new run every five seconds, and not one wrong or failed answer."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import numpy as np
import pytest

import metatl
from local_server import free_port

SECONDS, CLIENTS, SECONDS_OF_A_RUN, TOP = 60, 8, 5, 10


class Client(threading.Thread):
    """Asks for lists until the time is over, and compares each with those of all runs."""

    def __init__(self, port, seed, until, expected):
        super().__init__()
        self.port, self.until, self.expected = port, until, expected
        self.generator = np.random.default_rng(seed)
        self.seconds, self.problems = [], []

    def run(self):
        histories = list(self.expected)
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            while time.monotonic() < self.until:
                history = histories[self.generator.integers(len(histories))]
                body = json.dumps({"history": history, "top": TOP})
                begin = time.perf_counter()
                try:
                    connection.request("POST", "/recommend", body, {"content-type": "application/json"})
                    answer = connection.getresponse()
                    content = answer.read()
                except OSError as error:
                    self.problems.append(repr(error))
                    connection.close()
                    continue
                self.seconds.append(time.perf_counter() - begin)
                if answer.status != 200:
                    self.problems.append(content[:200])
                    continue
                items = tuple(item["item_id"] for item in json.loads(content)["users"][0]["items"])
                if items not in self.expected[history]:
                    self.problems.append(f"{history}: {items}")


def fit_runs(folder):
    """Two runs of different systems, which take turns."""
    for name in ("markov", "knn"):
        metatl.fit("wines", model=name, out=folder / name)
    recommenders = [metatl.Recommender.load(folder / name) for name in ("markov", "knn")]
    ids = recommenders[0].item_ids.to_list()
    generator = np.random.default_rng(0)
    chosen = [generator.choice(len(ids), 3, replace=False) for _ in range(300)]
    histories = [tuple(ids[item] for item in items) for items in chosen]
    lists = [recommender.recommend(histories, TOP) for recommender in recommenders]
    return {
        history: {tuple(item.item_id for item in one[user]) for one in lists}
        for user, history in enumerate(histories)
    }


@pytest.mark.slow
def test_a_minute_under_load_with_a_reload_every_five_seconds(tmp_path):
    pytest.importorskip("uvicorn")
    expected = fit_runs(tmp_path)
    served = tmp_path / "served"
    shutil.copytree(tmp_path / "markov", served)
    port = free_port()
    command = [sys.executable, "-m", "metatl.cli.metatl.main", "serve", str(served), "--port", str(port)]
    service = subprocess.Popen(command)
    try:
        wait_until_ready(port)
        until = time.monotonic() + SECONDS
        clients = [Client(port, seed, until, expected) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        replaced = 0
        while time.monotonic() < until - SECONDS_OF_A_RUN:
            time.sleep(SECONDS_OF_A_RUN)
            metatl.fit("wines", model=("knn", "markov")[replaced % 2], out=served, overwrite=True)
            replaced += 1
        for client in clients:
            client.join()
        problems = [problem for client in clients for problem in client.problems]
        seconds = np.concatenate([client.seconds for client in clients])
        assert not problems, problems[:5]
        assert len(seconds) > 1000
        reloads = metric(port, "metatl_reloads_total")
        assert reloads >= replaced - 1
        print(  # noqa: T201 (the figures)
            f"{len(seconds):,} requests, p50 {1e3 * np.median(seconds):.1f} ms, "
            f"p99 {1e3 * np.quantile(seconds, 0.99):.1f} ms, {replaced} runs"
        )
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=30) in (0, -signal.SIGTERM)
    finally:
        service.kill()


def get(port, path):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def wait_until_ready(port):
    for _ in range(400):
        try:
            if get(port, "/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("the service does not start")


def metric(port, name):
    lines = get(port, "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))
