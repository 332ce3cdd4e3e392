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

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


def write_shop(folder):
    """A click log with a broken row, a bot and late items, and a table of the items."""
    generator = np.random.default_rng(0)
    names = ["cup, blue", "plate", "saucer", "sold out", *(f"item {number}" for number in range(36))]
    lines = ["user_id,item_id,timestamp"]
    for user in range(300):
        start = int(generator.integers(len(names)))
        for step in range(int(generator.integers(6, 12))):
            item = names[(start + step) % len(names)]
            lines.append(f'u{user},"{item}",{1_388_000_000 + 86_400 * user + 1000 * step}')
    lines += [f'bot,"{names[row % 30]}",{1_390_000_000 + row}' for row in range(2000)]
    (folder / "clicks.csv").write_text("\n".join(lines) + "\n")
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
    (script,) = blocks("sh")
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
