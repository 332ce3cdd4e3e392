"""Run commands of metatl that are killed, or whose disk fails, at a given call that changes a file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 120.0


class Action(IntEnum):
    """What happens at the call; the numbers are those of `file_faults.c`."""

    COUNT = 0
    KILL = 1
    KILL_HALFWAY = 2
    KILL_AFTER = 3
    FAIL_ONCE = 4
    FAIL_FROM_THEN_ON = 5


@dataclass(frozen=True)
class Fault:
    """The action at the n-th call, counted from 1, and the error number of a failing call."""

    call: int = 0
    action: Action = Action.COUNT
    error: int = 0

    def __str__(self):
        error = f" ({os.strerror(self.error)})" if self.error else ""
        return f"{self.action.name.lower().replace('_', ' ')}{error} at call {self.call}"


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code (negative after a signal), its streams, its calls."""

    code: int
    output: str
    errors: str
    calls: list[str]


class CommandServer:
    """The process of `command_server.py`; a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0
        self._codes: dict[int, int] = {}

    def __enter__(self):
        shim = self.folder / "file_faults.so"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "file_faults.c", "-ldl"], check=True
        )
        environment = {
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "METATL_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
            "MPLBACKEND": "agg",
        }
        self._process = subprocess.Popen(
            [sys.executable, HERE / "command_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, command: list[str], folder: Path, fault: Fault = Fault(), **options) -> Ended:
        """Run a command, and wait for its end."""
        return self.start(command, folder, fault, **options).wait()

    def start(
        self,
        command: list[str],
        folder: Path,
        fault: Fault = Fault(),
        *,
        in_process: bool = False,
        timeout: float = SECONDS,
    ) -> Started:
        """Start a command whose calls below `folder` count.

        Parameters
        ----------
        command : list of str
            `metatl` or `metatl-eval`, and its arguments.
        folder : Path
            The folder, without links.
        fault : Fault
            What happens; by default the calls are only counted.
        in_process : bool
            Whether the fits of `metatl reproduce` run in the process of the command.
        timeout : float
            Seconds after which the command is ended by SIGALRM.
        """
        self._started += 1
        streams = [self.folder / f"{self._started}.{kind}" for kind in ("out", "err", "log")]
        request = {
            "program": command[0],
            "arguments": [str(argument) for argument in command[1:]],
            "arm": [fault.call, fault.action, fault.error, str(streams[2]), str(folder)],
            "stdout": str(streams[0]),
            "stderr": str(streams[1]),
            "timeout": timeout,
            "in_process": in_process,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        while True:
            answer = self._read()
            if "code" not in answer:
                return Started(self, answer["pid"], streams)

    def wait(self, pid: int) -> int:
        """Wait for the process, and return its exit code."""
        while pid not in self._codes:
            self._read()
        return self._codes.pop(pid)

    def _read(self) -> dict[str, int]:
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the server has ended; its stderr says why")
        answer = json.loads(line)
        if "code" in answer:
            self._codes[answer["pid"]] = answer["code"]
        return answer


@dataclass(frozen=True)
class Started:
    """A command that was started."""

    server: CommandServer
    pid: int
    streams: list[Path]

    def wait(self) -> Ended:
        """Wait for the end of the command."""
        code = self.server.wait(self.pid)
        output, errors, log = (path.read_text(encoding="utf-8", errors="replace") for path in self.streams)
        for path in self.streams:
            path.unlink()
        return Ended(code, output, errors, log.splitlines())


def why_not_here() -> str | None:
    """Why the shim cannot be built here; None if it can."""
    if sys.platform != "linux":
        return "the shim is written for Linux"
    return None if shutil.which("cc") else "there is no C compiler `cc` to build the shim"
