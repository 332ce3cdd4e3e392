"""The commands and the Python of docs/serving.md do what they say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import metatl

LATE = 6
DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


def write_shop(folder):
    """A click log of 130,000 rows with broken rows, a bot and late items, and a table of the items."""
    generator = np.random.default_rng(0)
    names = ["cup, blue", "plate", "saucer", "sold out", *(f"item {number}" for number in range(236))]
    users, day = 14_000, 86_400
    lines = []
    for user in range(users):
        # The last items are sold for the last twentieth of the time only.
        on_sale = len(names) if user > 0.95 * users else len(names) - LATE
        start = int(generator.integers(on_sale))
        for step in range(int(generator.integers(6, 12))):
            item = names[(start + step) % on_sale]
            lines.append(f'u{user},"{item}",{1_388_000_000 + user * day // 40 + 1000 * step}')
    lines += [f'bot,"{names[row % 200]}",{1_390_000_000 + row}' for row in range(12_000)]
    broken = ["u1", "u2,plate,yesterday", ",plate,1390000000", 'u3,"",1390000000', "u4,plate,"]
    for position, row in zip(generator.integers(len(lines), size=len(broken)), broken, strict=True):
        lines.insert(position, row)
    assert len(lines) > 130_000
    text = "\n".join(["user_id,item_id,timestamp", *lines])
    (folder / "clicks.csv").write_text(text + "\n")
    rows = [f'"{name}",{"cup" if "cup" in name else "plate"}' for name in names]
    (folder / "items.csv").write_text("item_id,kind\n" + "\n".join(rows) + "\n")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_the_commands_work_one_after_the_other(tmp_path):
    pytest.importorskip("uvicorn")
    write_shop(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    script = "".join(blocks("sh"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    service = None
    answers = {}
    try:
        for line in script.replace("9000", port).splitlines():
            command = line.partition("    #")[0]
            if command.startswith("pip "):
                continue
            if command.startswith("metatl serve"):
                service = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=tmp_path, env=environment)
                for _ in range(200):
                    with socket.socket() as client:
                        if client.connect_ex(("127.0.0.1", int(port))) == 0:
                            break
                    time.sleep(0.05)
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            answers[command] = done.stdout
        answered = " ".join(answers.values())
        assert "error" not in answered
        assert answered.count('"users"') == 2
        assert '"shares"' not in answered
        assert '"adaptation"' in answered
        assert "metatl_requests_total" in answered
        trained = next(text for command, text in answers.items() if command.startswith("metatl train"))
        assert "dropped: 5 bad rows" in trained
        for run in ("runs/shop", "exports/sasrec"):
            known = set(metatl.Recommender.load(tmp_path / run).item_ids)
            assert {f"item {number}" for number in range(236 - LATE, 236)} <= known
        assert service.poll() is None
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=20) in (0, -signal.SIGTERM)
    finally:
        if service is not None:
            service.kill()


@pytest.mark.slow
def test_the_python_works_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("python")
    exec(compile(program, str(DOCUMENT), "exec"), {})  # noqa: S102 (the document's own lines)
    printed = capsys.readouterr().out
    assert "adaptation" in printed
    assert len(re.findall(r"^1\d{5} -", printed, flags=re.MULTILINE)) == 5


def test_the_document_lists_every_path():
    pytest.importorskip("starlette")
    from metatl.serving.service.openapi import describe

    text = DOCUMENT.read_text()
    for path in describe()["paths"]:
        assert f"{path}`" in text or f"{path}?" in text, path
    for name in ("recommend", "scores", "similar_items", "explain", "reload"):
        assert f"`{name}(" in text
        assert callable(getattr(metatl.Recommender, name))
