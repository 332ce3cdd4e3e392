"""A process that has imported everything and forks a child for each command, under the preloaded shim.

Importing torch and polars takes seconds, and a sweep runs thousands of commands. Nothing here uses polars or
torch before the fork: their threads start in the child, which then is like a new process.

It reads a request in JSON from each line of stdin. It answers with a line when the child has started, and
with another one when it has ended.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
import time
import traceback

COMMANDS = {"metatl": "metatl.cli.metatl.main", "metatl-eval": "metatl.cli.metatl_eval.main"}
# What the commands import when they run.
MODULES = (
    *COMMANDS.values(),
    "metatl.cli.metatl.recommend",
    "metatl.cli.metatl.train",
    "metatl.cli.metatl_eval.candidates",
    "metatl.cli.metatl_eval.scores",
    "metatl.cli.progress",
    "metatl.data.readers.interaction_files",
    "metatl.evaluation.external.evaluate_scores",
    "metatl.evaluation.report.results",
    "metatl.evaluation.report.tables",
    "metatl.experiments.figure2",
    "metatl.experiments.report_files",
    "metatl.models.markov_chain",
    "metatl.models.metatl.model",
    "metatl.serving.recommender",
    "metatl.training.fit",
    "metatl.training.outer_loop",
    "rich.table",
    "torch.utils.tensorboard",
)
POLL_SECONDS = 0.002


def _serve() -> None:
    deadlines: dict[int, float] = {}
    while True:
        if select.select([0], [], [], POLL_SECONDS if deadlines else None)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                _become(request)
                _end(_run(request))
            deadlines[child] = time.monotonic() + request["timeout"]
            _answer(pid=child)
        for child, deadline in list(deadlines.items()):
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                del deadlines[child]
                _answer(pid=child, code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            elif time.monotonic() > deadline:
                os.killpg(child, signal.SIGALRM)


def _answer(**fields: int) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _become(request: dict[str, object]) -> None:
    """Turn the child into the process of a command: a session, its streams and the armed shim."""
    os.setsid()
    for number, name in enumerate(("/dev/null", request["stdout"], request["stderr"])):
        opened = os.open(str(name), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    forks = sys.modules.get("metatl.common.forks")
    if forks is not None:
        # metatl refuses to work in a child of a process with polars, whose threads the child lacks.
        # Here none had started.
        forks._process["forked_with_polars"] = False
    if request["in_process"]:
        import metatl.experiments.grid
        from in_process import work

        metatl.experiments.grid.work = work
    call, action, error, log, folder = request["arm"]
    log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    ctypes.CDLL(None).faults_arm(ctypes.c_long(call), action, error, log_file, os.fsencode(folder))


def _run(request: dict[str, object]) -> int:
    command = importlib.import_module(COMMANDS[request["program"]]).main
    try:
        command(request["arguments"], prog_name=request["program"])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (as the interpreter does with what nobody catches)
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> None:
    """End as the interpreter does, but for the seconds in which it takes itself to pieces."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    os.environ.pop("LD_PRELOAD")  # loaded already; no process that a command starts needs it
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy every page
    _serve()
    os._exit(0)
