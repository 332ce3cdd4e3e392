"""A process that damages files and reads them, so that a crash, a hang or a lack of memory is an outcome."""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
import warnings
from collections import Counter
from ctypes import Structure, c_double, c_long
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from polars.exceptions import PanicException

from metatl.exceptions import MetatlError
from mutated_readers import READERS, Reader, Unsure, is_same
from mutations import mutate

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SECONDS = 10.0  # of one file: hundreds of times what a valid one takes
MEMORY_BYTES = 2**30  # of one file
ADDRESS_SPACE = (
    6 * 2**30
)  # beyond what the process has when it starts, so that a hostile file cannot take all
EXAMPLES = 5  # of a kind of failure
LONGEST_MESSAGE = 4000


class Progress(Structure):
    """What the process is at: a seed, and since when (0 between two files); in shared memory."""

    _fields_ = (("seed", c_long), ("since", c_double))


@dataclass
class Outcomes:
    """What became of the mutated files of one reader.

    Attributes
    ----------
    counts : Counter of str
        Files by outcome.
    failures : dict of str to list of str
        For each outcome that must not be, some files: the reader's name, the seed and what happened.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def add(self, outcome: str, example: str | None = None) -> None:
        """Count a file; one with an example is a failure."""
        self.counts[outcome] += 1
        if example is not None:
            examples = self.failures.setdefault(outcome, [])
            if len(examples) < EXAMPLES:
                examples.append(example)

    def merge(self, other: Outcomes) -> None:
        """Add the outcomes of other files."""
        self.counts += other.counts
        for outcome, examples in other.failures.items():
            known = self.failures.setdefault(outcome, [])
            known += examples[: EXAMPLES - len(known)]

    def __str__(self):
        lines = [f"{count:7} {outcome}" for outcome, count in self.counts.most_common()]
        lines += [
            f"{outcome}: {example}" for outcome, examples in self.failures.items() for example in examples
        ]
        return "\n".join(lines)


def mutated(name: str, seed: int, content: bytes) -> bytes:
    """Return the file that a seed stands for."""
    random = Random(f"{name} {seed}")  # noqa: S311 (nothing is secret)
    return mutate(random, content, READERS[name].mutator)


def judge(reader: Reader, path: Path, content: bytes, expected: Any) -> tuple[str, str | None]:
    """Read a mutated file; return the outcome, and what is wrong with it or None."""
    try:
        answer = reader.read(path)
    except (MetatlError, OSError) as error:
        return _judge_error(error, path)
    except PanicException as error:
        return f"panic: {_first_line(error)}", str(error)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is no error of metatl)
        kind = type(error)
        return f"foreign exception: {kind.__module__}.{kind.__name__}", _first_line(error)
    return _judge_answer(reader, content, answer, expected)


def _judge_answer(reader: Reader, content: bytes, answer: Any, expected: Any) -> tuple[str, str | None]:
    if is_same(answer, expected):
        return "read as the seed", None
    if reader.is_protected:
        return "silently wrong", "read as another content, which a hash should have covered"
    right = Unsure if reader.oracle is None else reader.oracle(content)
    if right is Unsure:
        return "read", None
    return (
        ("read, rightly", None) if is_same(answer, right) else ("silently wrong", "not what is in the file")
    )


def _judge_error(error: MetatlError | OSError, path: Path) -> tuple[str, str | None]:
    message = str(error)
    outcome = f"refused: {type(error).__name__}"
    if "\n" in message or len(message) > LONGEST_MESSAGE:
        return "a message of several lines, or too long", f"{type(error).__name__}: {message[:200]!r}"
    if path.name not in message and str(path.parent) not in message:
        return "a message without the file", f"{type(error).__name__}: {message[:200]}"
    return outcome, None


def _first_line(error: BaseException) -> str:
    return re.sub(r"0x[0-9a-f]+|\d{3,}", "N", (str(error).splitlines() or [""])[0])[:200]


def work(pipe: Connection, progress: Progress, seeds: Path, folder: Path) -> None:
    """Answer requests for (name of the reader, first seed, seed after the last) with `Outcomes`."""
    warnings.simplefilter("ignore")
    errors = os.open(folder / "stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    _limit_address_space()
    while True:
        try:
            name, first, end = pipe.recv()
        except EOFError:
            return
        outcomes = Outcomes()
        _read_all(name, range(first, end), outcomes, progress, seeds, folder / "work")
        pipe.send(outcomes)


def _limit_address_space() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _read_all(
    name: str, numbers: range, outcomes: Outcomes, progress: Progress, seeds: Path, folder: Path
) -> None:
    reader = READERS[name]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeds, folder)
    path = folder / reader.file
    content = path.read_bytes()
    expected = reader.read(path)
    for number in numbers:
        changed = mutated(name, number, content)
        path.write_bytes(changed)
        printed, before = os.fstat(2).st_size, _reset_peak()
        progress.seed, progress.since = number, time.monotonic()
        outcome, fault = judge(reader, path, changed, expected)
        seconds = time.monotonic() - progress.since
        progress.since = 0.0
        used = _peak() - before
        if fault is None and seconds > SECONDS:
            outcome, fault = "too slow", f"{seconds:.1f} s"
        if fault is None and used > MEMORY_BYTES:
            outcome, fault = "too much memory", f"{used / 2**20:.0f} MiB for {len(changed)} bytes"
        if fault is None and os.fstat(2).st_size > printed:
            outcomes.add("(printed on stderr)")
        outcomes.add(outcome, None if fault is None else f"{name} {number}: {fault}")


def _reset_peak() -> int:
    """Forget the largest memory of this process so far, and return the present one, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_bytes()
    return int(status[status.index(b"VmHWM:") + 6 :].split(None, 1)[0]) * 1024


class ReadingWorker:
    """Runs `work` in a process, which is started again after a crash or a hang; a context."""

    def __init__(self, seeds: Path, folder: Path) -> None:
        self.seeds = seeds
        self.folder = folder

    def __enter__(self):
        self._start()
        return self

    def __exit__(self, *exception):
        self._stop()

    def _start(self) -> None:
        context = get_context("spawn")
        self._progress = context.RawValue(Progress)
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._progress, self.seeds, self.folder)
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def read(self, name: str, files: int, first: int = 0) -> Outcomes:
        """Damage and read `files` files."""
        outcomes, end = Outcomes(), first + files
        while first < end:
            self._pipe.send((name, first, end))
            answer = self._receive()
            if isinstance(answer, Outcomes):
                outcomes.merge(answer)
                break
            bad = self._progress.seed
            self._stop()
            last_words = (self.folder / "stderr").read_text(errors="replace").strip().rpartition("\n")[2]
            self._start()
            # What came before it is read again: its outcomes died with the process.
            if bad > first:
                outcomes.merge(self.read(name, bad - first, first))
            outcomes.add(answer, f"{name} {bad}: {last_words[:200]}")
            first = bad + 1
        return outcomes

    def _receive(self) -> Outcomes | str:
        """Wait for an answer, or say what happened instead of it."""
        while not self._pipe.poll(0.2):
            since = self._progress.since
            if since and time.monotonic() - since > 2 * SECONDS:
                return "hang"
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            return f"crash: exit code {self._process.exitcode}"
