"""The service: its answers are those of the recommender, and whatever is wrong is one line of JSON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import jsonschema
import polars as pl
import pytest

pytest.importorskip("starlette")

from starlette.testclient import TestClient

import metatl
from local_server import free_port
from metatl.serving.service.app import build
from metatl.serving.service.limits import RateLimit
from metatl.serving.service.openapi import describe
from metatl.serving.service.settings import ServiceSettings
from planted_data import write_ring

ITEMS = 40
CONFIG = {"dim": 8, "batch_size": 32, "max_steps": 4, "eval_every": 2, "shared_negatives": 16}
CONFIG["shared_support_negatives"] = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    data = write_ring(folder / "ring.csv", 200, items=ITEMS)
    metatl.fit(data, config=CONFIG, out=folder / "run", device="cpu")
    ids = [f"i{number}" for number in range(ITEMS)]
    table = pl.DataFrame({"item_id": ids, "title": [f"Cup {item}" for item in ids], "kind": ["a", "b"] * 20})
    table.write_csv(folder / "items.csv")
    return folder


@pytest.fixture(scope="module")
def client(folder):
    settings = ServiceSettings(
        run=str(folder / "run"),
        items=str(folder / "items.csv"),
        max_body_bytes=3000,
        max_histories=5,
        max_items=50,
    )
    with TestClient(build(settings)) as started:
        yield started


@pytest.fixture(scope="module")
def recommender(folder):
    return metatl.Recommender.load(folder / "run", items=folder / "items.csv")


def items_of(user):
    return [(one["item_id"], one["score"]) for one in user["items"]]


def expected(answer, user=0):
    return [(one.item_id, one.score) for one in answer[user]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top": 3},
        {"exclude": ["i5", "i6"]},
        {"allow": ["i5", "i6"]},
        {"where": {"kind": "a"}},
        {"include_history": True},
        {"inner_step": False},
    ],
)
def test_lists_are_those_of_the_recommender(client, recommender, options):
    histories = [["i3", "i4"], ["unknown"], []]
    answer = client.post("/recommend", json={"histories": histories, **options})
    assert answer.status_code == 200
    lists = recommender.recommend(histories, **options)
    users = answer.json()["users"]
    assert [items_of(user) for user in users] == [expected(lists, user) for user in range(3)]
    assert [user["basis"] for user in users] == ["history", "popularity", "popularity"]
    assert users[1]["unknown_items"] == ["unknown"]
    first = users[0]["items"][0]
    assert first["item"]["title"] == f"Cup {first['item_id']}"
    one = client.post("/recommend", json={"history": histories[0], **options}).json()
    assert one["users"] == users[:1]


def test_other_answers_are_those_of_the_recommender(client, recommender):
    similar = client.post("/similar", json={"ids": ["i3", "unknown"], "top": 4}).json()["items"]
    assert [one["item_id"] for one in similar[0]] == [
        one.item_id for one in recommender.similar_items(["i3"], 4)[0]
    ]
    assert similar[1] == []
    explained = client.post("/explain", json={"history": ["i3", "i4"], "item": "i9"}).json()
    by_hand = recommender.explain(["i3", "i4"], "i9")
    assert explained["items"] == [one._asdict() for one in by_hand.items]
    assert explained["transitions"] == [one._asdict() for one in by_hand.transitions]
    shares = [part["share"] for part in explained["items"] + explained["transitions"]]
    assert sum(shares) + explained["adaptation"] + explained["base"] == pytest.approx(explained["score"])


def test_items_are_found_by_their_words(client):
    found = client.get("/items", params={"query": "CUP i3", "limit": 5}).json()
    assert found["total"] == 11  # i3 and i30 to i39
    assert all("i3" in item["item_id"] for item in found["items"])
    assert client.get("/items", params={"query": "nothing"}).json() == {"items": [], "total": 0}
    assert client.get("/items").json()["total"] == ITEMS
    assert client.get("/columns").json() == {"columns": {"kind": ["a", "b"]}}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/recommend", b"{", 422, "body: found no JSON, expected an object"),
        ("/recommend", b"[]", 422, "body: found [], expected an object"),
        ("/recommend", b"{}", 422, "histories: expected either history or histories"),
        ("/recommend", b'{"history": 3}', 422, "history: found 3, expected a list"),
        ("/recommend", b'{"history": [1.5]}', 422, "history.0"),
        ("/recommend", b'{"history": [], "tip": 3}', 422, "tip: found 3, expected no such field"),
        ("/recommend", b'{"history": [], "top": 0}', 422, "top: found 0, expected a number of at least 1"),
        ("/recommend", b'{"history": [], "top": 51}', 422, "top: found 51, expected at most 50"),
        ("/recommend", b'{"histories": [[],[],[],[],[],[]]}', 422, "histories: found 6, expected at most 5"),
        ("/recommend", b'{"history": [], "where": {"x": 1}}', 422, "where: found no column 'x'"),
        ("/recommend", b'{"history": [], "allow": [["i1"],["i2"]]}', 422, "allow: found 2 lists"),
        ("/recommend", b" " * 4000, 413, "body: found more than 3000 bytes"),
        ("/explain", b'{"history": ["i1"], "item": "no"}', 422, "item: found 'no', expected an item"),
        ("/similar", b'{"ids": "i1"}', 422, "ids: found 'i1', expected a list"),
        ("/nothing", b"", 404, "Not Found"),
        ("/items", b"", 405, "Method Not Allowed"),
    ],
)
def test_what_is_wrong_is_one_line(client, path, body, status, message):
    answer = client.post(path, content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_body_that_announces_no_size_is_bounded_too(client):
    answer = client.post("/recommend", content=(b" " * 1000 for _ in range(9)))
    assert answer.status_code == 413


def test_limits_of_the_query(client):
    for limit in ("0", "x", "-1", "1.5", "99"):
        answer = client.get("/items", params={"limit": limit})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("limit: found ")


def test_rate_is_limited_by_client(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("metatl.serving.service.limits.time.monotonic", lambda: now[0])
    limit = RateLimit(2)
    assert [limit.allows("a") for _ in range(3)] == [True, True, False]
    assert limit.allows("b")
    now[0] = 0.5
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    now[0] = 100
    assert [limit.allows("a") for _ in range(3)] == [True, True, False]


def test_too_many_requests_are_refused(folder):
    with TestClient(build(ServiceSettings(run=str(folder / "run"), rate=0.001))) as client:
        assert client.get("/items").status_code == 200
        answer = client.get("/items")
        assert answer.status_code == 429
        assert answer.json()["error"].startswith("found more than 0.001 requests a second")
        assert client.get("/health").status_code == 200


def test_slow_answers_are_given_up(folder, monkeypatch):
    with TestClient(build(ServiceSettings(run=str(folder / "run"), timeout=0.05))) as client:
        monkeypatch.setattr(
            "metatl.serving.recommender.Recommender.similar_items", lambda *_: time.sleep(0.3)
        )
        answer = client.post("/similar", json={"ids": ["i3"]})
    assert answer.status_code == 503
    assert answer.json()["error"] == "found no answer within 0.05 s; ask for less"


def test_the_process_tells_how_it_is(client, folder):
    assert client.get("/health").json()["status"] == "ok"
    ready = client.get("/ready").json()
    assert (ready["model"], ready["items"], ready["inner_step"]) == ("metatl", ITEMS, True)
    text = client.get("/metrics").text
    assert 'metatl_requests_total{path="/recommend",status="200"}' in text
    assert 'metatl_request_seconds_bucket{le="0.001",path="/recommend"}' in text
    written = (folder / "run" / "run.json").stat().st_mtime
    line = next(line for line in text.splitlines() if line.startswith("metatl_run_trained_timestamp"))
    assert float(line.split()[1]) == pytest.approx(written)


def test_the_description_fits_the_answers(client):
    description = client.get("/openapi.json").json()
    assert description == describe()
    assert description["openapi"] == "3.1.0"
    schemas = description["components"]

    def check(answer, name):
        jsonschema.validate(answer.json(), {"$ref": f"#/components/schemas/{name}", "components": schemas})

    check(client.post("/recommend", json={"history": ["i3"]}), "RecommendAnswer")
    check(client.post("/similar", json={"ids": ["i3"]}), "SimilarAnswer")
    check(client.post("/explain", json={"history": ["i3", "i4"], "item": "i5"}), "ExplainAnswer")
    check(client.get("/items"), "ItemsAnswer")
    check(client.get("/columns"), "ColumnsAnswer")
    check(client.post("/recommend", json={}), "ErrorAnswer")
    routes = {route.path for route in client.app.routes}
    assert set(description["paths"]) == routes - {"/", "/page.css", "/page.js", "/openapi.json"}


def test_the_page_asks_no_other_host(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("/", "/page.css", "/page.js"):
        assert "//" not in client.get(path).text.replace("http://www.w3.org/2000/svg", "").replace(
            "// ", ""
        ), path


def test_a_new_run_is_taken_over(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    settings = ServiceSettings(run=str(run), reload_seconds=0.02)
    with TestClient(build(settings)) as client:
        first = client.post("/recommend", json={"history": ["i3"]}).json()
        (run / "best.safetensors").write_bytes(b"damaged")
        os.utime(run / "run.json")
        time.sleep(0.1)
        assert client.post("/recommend", json={"history": ["i3"]}).json() == first
        metatl.fit(folder / "ring.csv", model="markov", out=run, overwrite=True)
        for _ in range(200):
            if client.get("/ready").json()["model"] == "markov":
                break
            time.sleep(0.02)
        assert client.get("/ready").json()["model"] == "markov"
        assert client.post("/recommend", json={"history": ["i3"]}).json() != first
        assert "metatl_reloads_total 1.0" in client.get("/metrics").text


# --- The command


def serve(*arguments):
    command = "from metatl.cli.metatl.main import main; main(prog_name='metatl')"
    return subprocess.Popen(
        [sys.executable, "-c", command, "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(port, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (its address is above)
        return json.loads(answer.read())


def wait_until_ready(port, process):
    for _ in range(300):
        if process.poll() is not None:
            raise AssertionError(process.stderr.read())
        try:
            return ask(port, "/ready")
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError("not ready")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_answers_through_reloads_and_stops(folder, tmp_path, workers):
    run, port = tmp_path / "run", free_port()
    shutil.copytree(folder / "run", run)
    process = serve(run, "--port", port, "--workers", workers)
    try:
        wait_until_ready(port, process)
        stop, wrong, answered = threading.Event(), [], [0]

        def load():
            while not stop.is_set():
                try:
                    users = ask(port, "/recommend", {"history": ["i3", "i4"], "top": 5})["users"]
                    assert len(users[0]["items"]) == 5
                    answered[0] += 1
                except Exception as error:  # noqa: BLE001, PERF203 (whatever it is, it is wrong)
                    wrong.append(error)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for seed in (1, 2):
            metatl.fit(folder / "ring.csv", model="markov", out=run, overwrite=True, seed=seed)
            time.sleep(1.2)
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert answered[0] > 50
        assert ask(port, "/ready")["model"] == "markov"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_cannot_be_loaded_is_one_line(tmp_path):
    process = serve(tmp_path / "none")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.startswith("Error: ")
    assert errors.count("\n") == 1


def test_torch_is_not_imported(folder):
    program = f"""
import sys
from starlette.testclient import TestClient
from metatl.serving.service.app import build
from metatl.serving.service.settings import ServiceSettings
with TestClient(build(ServiceSettings(run={str(folder / "run")!r}))) as client:
    for path, body in (
        ("/recommend", {{"history": ["i3"]}}),
        ("/similar", {{"ids": ["i3"]}}),
        ("/explain", {{"history": ["i3", "i4"], "item": "i5"}}),
    ):
        assert client.post(path, json=body).status_code == 200
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
