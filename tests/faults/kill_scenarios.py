"""Commands that write files, and what must hold after a kill or a failing disk at any of their calls."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

import metatl
from candidate_data import small_candidates, small_split
from faulty_commands import Action, CommandServer, Ended, Fault
from metatl.exceptions import MetatlError
from planted_data import write_ring

if TYPE_CHECKING:
    from collections.abc import Callable

# MetaTL in three evaluations of two steps, on few items: a third of a second.
SMALL = ("max_steps=6", "eval_every=2", "dim=8", "batch_size=16")
NOT_COMPARED = ("tensorboard", "environment.json")  # a folder and a file: times, process ids
PROGRESS = re.compile(r"\d+/\d+ |written: ")  # lines of `metatl reproduce`
VOLATILE = ("timings", "fit_seconds", "processor_seconds", "seconds")


@dataclass(frozen=True)
class Scenario:
    """A command in a folder.

    Attributes
    ----------
    before : Path
        The folder as the command finds it.
    reference : Path
        The folder as the command leaves it if nothing happens.
    command, again : callable
        Folder to the command, and to the one that continues it.
    check : callable
        Folder to what is wrong with it at the moment of the kill.
    finished : callable
        Folder to the files in it that must not be made again.
    calls : list of str
        The calls of the uninterrupted command.
    """

    before: Path
    reference: Path
    command: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    check: Callable[[Path], list[str]]
    finished: Callable[[Path], dict[str, bytes]]
    calls: list[str]
    in_process: bool = False


def judge(scenario: Scenario, server: CommandServer, folder: Path, *faults: Fault) -> tuple[list[str], bool]:
    """Run the command under one fault after the other, then what continues it.

    Returns
    -------
    problems : list of str
        What is wrong, in words that do not depend on the point.
    fired : bool
        Whether the last fault came about.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(scenario.before, folder)
    problems, fired = [], False
    for fault in faults:
        ended = server.run(scenario.command(folder), folder, fault, in_process=scenario.in_process)
        fired = len(ended.calls) >= fault.call
        problems += _of_end(ended, fault, fired=fired)
        problems += scenario.check(folder)
    finished = scenario.finished(folder)
    again = server.run(scenario.again(folder), folder, in_process=scenario.in_process)
    if again.code != 0:
        return [*problems, f"nothing continues it: {_last_line(again.errors, folder)}"], fired
    problems += [f"made again: {name}" for name, old in finished.items() if _bytes(folder / name) != old]
    return [*problems, *differences(folder, scenario.reference)], fired


def _of_end(ended: Ended, fault: Fault, *, fired: bool) -> list[str]:
    if not fired:
        return [] if ended.code == 0 else [f"exit code {ended.code} without a fault"]
    if fault.action in (Action.KILL, Action.KILL_HALFWAY, Action.KILL_AFTER):
        return [] if ended.code == -9 else [f"exit code {ended.code} after a kill"]
    if "Traceback" in ended.errors or "Exception ignored" in ended.errors:
        last = re.sub(r"/\S+|'[^']*'", "…", _last_line(ended.errors, Path("/none")))
        return [f"traceback: {last} (exit code {ended.code})"]
    if ended.code not in (0, 2):
        return [f"exit code {ended.code} after a failing call"]
    lines = [line for line in ended.errors.splitlines() if line.strip() and not PROGRESS.match(line)]
    warnings = [line for line in lines if line.startswith("warning: ")]
    errors = [line for line in lines if line.startswith("Error: ")]
    if len(errors) != (ended.code == 2) or len(warnings) > 1 or len(errors) + len(warnings) != len(lines):
        return [f"{len(lines)} lines on stderr with exit code {ended.code}"]
    return []


def _last_line(text: str, folder: Path) -> str:
    lines = text.strip().splitlines()
    return lines[-1].replace(str(folder), "…") if lines else "no message"


def differences(folder: Path, reference: Path) -> list[str]:
    """Name the files of `folder` that differ from those of `reference`."""
    found, expected = _files(folder), _files(reference)
    problems = {f"left: {_plain(name)}" for name in found - expected}
    problems |= {f"missing: {name}" for name in expected - found}
    problems |= {
        f"another content: {name}"
        for name in found & expected
        if content(folder / name, folder) != content(reference / name, reference)
    }
    return sorted(problems)


def _files(folder: Path) -> set[str]:
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {file.as_posix() for file in files if not set(NOT_COMPARED) & set(file.parts)}


def _plain(name: str) -> str:
    return re.sub(r"[0-9a-f]{16}", "HEX", name)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def content(path: Path, folder: Path) -> object:
    """The bytes of a file; of one that holds times or the path of `folder`, what does not depend on them."""
    if path.suffix == ".json":
        text = path.read_bytes().replace(str(folder).encode(), b"")
        try:
            return _without_times(json.loads(text))
        except ValueError:
            return text
    if path.suffix in (".md", ".tex"):
        return re.sub(r"[0-9.]+ s\b", "… s", path.read_text(encoding="utf-8"))
    if path.name == "figure2.parquet":
        frame = pl.read_parquet(path)
        return frame.drop([name for name in frame.columns if "seconds" in name]).rows()
    return path.read_bytes()


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_times(part) for name, part in value.items() if name not in VOLATILE}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


class Scenarios:
    """The scenarios; each is prepared when it is first asked for."""

    def __init__(self, server: CommandServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.data = write_ring(folder / "ring.csv", 200, items=130)
        self._made: dict[str, Scenario] = {}

    def __getitem__(self, name: str) -> Scenario:
        if name not in self._made:
            self._made[name] = getattr(self, f"_{name}")()
        return self._made[name]

    def _make(
        self,
        name: str,
        before: Path,
        command: Callable[[Path], list[str]],
        *,
        check: Callable[[Path, Path, Path], list[str]],
        again: Callable[[Path], list[str]] | None = None,
        finished: Callable[[Path], dict[str, bytes]] = lambda _: {},
        in_process: bool = False,
    ) -> Scenario:
        reference = self.folder / f"{name}-reference"
        shutil.copytree(before, reference)
        ended = self.server.run(command(reference), reference, in_process=in_process)
        assert ended.code == 0, ended.errors
        assert len(ended.calls) >= 5, ended.calls
        return Scenario(
            before,
            reference,
            command,
            again or command,
            lambda folder: check(folder, before, reference),
            finished,
            ended.calls,
            in_process,
        )

    def _before(self, name: str) -> Path:
        folder = self.folder / f"{name}-before"
        folder.mkdir()
        return folder

    def _run(self, *command: str, folder: Path, in_process: bool = False) -> None:
        ended = self.server.run(list(command), folder, in_process=in_process)
        assert ended.code == 0, ended.errors

    def _train_command(self, *options: str, model: str = "metatl") -> Callable[[Path], list[str]]:
        settings = [f"--set={setting}" for setting in SMALL] if model == "metatl" else []

        def command(folder: Path) -> list[str]:
            out = str(folder / "run")
            return [
                "metatl",
                "train",
                "--data",
                str(self.data),
                "--model",
                model,
                "--out",
                out,
                *settings,
                *options,
            ]

        return command

    def _train(self) -> Scenario:
        before = self._before("train")
        return self._make(
            "train", before, self._train_command(), again=self._train_command("--resume"), check=_training
        )

    def _train_counting(self) -> Scenario:
        before = self._before("train_counting")
        command = self._train_command(model="markov")
        again = self._train_command("--resume", model="markov")
        return self._make("train_counting", before, command, again=again, check=_training)

    def _train_all_data(self) -> Scenario:
        """Choose the steps on the split, then fit on every row."""
        before = self._before("train_all_data")
        command = self._train_command("--all-data")
        again = self._train_command("--all-data", "--resume")
        return self._make("train_all_data", before, command, again=again, check=_training)

    def _resume(self) -> Scenario:
        """Continue a training that was killed after its second evaluation."""
        before = self._before("resume")
        calls = self["train"].calls
        call = [number for number, line in enumerate(calls, 1) if line.endswith("rename /run/history.json")][
            1
        ]
        ended = self.server.run(self._train_command()(before), before, Fault(call, Action.KILL_AFTER))
        assert ended.code == -9
        resume = self._train_command("--resume")
        scenario = self._make("resume", before, resume, check=_training)
        assert differences(scenario.reference, self["train"].reference) == []
        return scenario

    def _overwrite(self) -> Scenario:
        before = self._before("overwrite")
        self._run(*self._train_command()(before), folder=before)
        return self._make(
            "overwrite", before, self._train_command("--seed", "1", "--overwrite"), check=_old_or_new_run
        )

    def _update(self) -> Scenario:
        """Go on from a run on a longer log."""
        before = self._before("update")
        self._run(*self._train_command("--no-validation")(before), folder=before)
        longer = self.folder / "longer.csv"
        longer.write_text(self.data.read_text() + "new,i0,1400000000\nnew,i1,1400000100\n")

        def command(folder: Path) -> list[str]:
            options = ["--data", str(longer), "--steps-share", "1"]
            return ["metatl", "update", str(folder / "run"), *options]

        return self._make("update", before, command, check=_old_or_new_run)

    def _export(self) -> Scenario:
        """Replace the export of one run by that of another."""
        trained = self.folder / "exported"
        for seed in ("0", "1"):
            self._run(*self._train_command("--seed", seed)(trained / seed), folder=trained / seed)

        def command(folder: Path, seed: str = "1") -> list[str]:
            options = ["--format", "safetensors", "--out", str(folder / "run"), "--overwrite"]
            return ["metatl", "export", str(trained / seed / "run"), *options]

        before = self._before("export")
        self._run(*command(before, "0"), folder=before)
        return self._make("export", before, command, check=_old_or_new_run)

    def _candidates(self) -> Scenario:
        def command(folder: Path, seed: str = "1") -> list[str]:
            out, train = str(folder / "candidates.parquet"), str(folder / "train.parquet")
            options = ["--out", out, "--train", train, "--n", "20", "--seed", seed]
            return ["metatl-eval", "candidates", str(self.data), *options]

        before = self._before("candidates")
        self._run(*command(before, "0"), folder=before)
        return self._make("candidates", before, command, check=_old_or_new_files)

    def _scores(self) -> Scenario:
        sets = small_candidates(small_split())
        sets.save(self.folder / "candidates.parquet")
        for seed in (0, 1):
            scores = np.random.default_rng(seed).random(sets.candidates.shape, dtype=np.float32)
            np.save(self.folder / f"scores{seed}.npy", scores)

        def command(folder: Path, seed: int = 1) -> list[str]:
            files = [str(self.folder / "candidates.parquet"), str(self.folder / f"scores{seed}.npy")]
            outputs = {
                "--per-user": "users.parquet",
                "--json": "results.json",
                "--markdown": "a.md",
                "--latex": "a.tex",
            }
            named = [text for option, name in outputs.items() for text in (option, str(folder / name))]
            return ["metatl-eval", "scores", *files, *named]

        before = self._before("scores")
        self._run(*command(before, 0), folder=before)
        return self._make("scores", before, command, check=_old_or_new_files)

    def _recommend(self) -> Scenario:
        run = self.folder / "recommending"
        self._run(*self._train_command(model="markov")(run), folder=run)

        def command(folder: Path, top: str = "4") -> list[str]:
            out = str(folder / "lists.parquet")
            return [
                "metatl",
                "recommend",
                str(run / "run"),
                "--input",
                str(self.data),
                "--out",
                out,
                "--top",
                top,
            ]

        before = self._before("recommend")
        self._run(*command(before, "3"), folder=before)
        return self._make("recommend", before, command, check=_old_or_new_files)

    def _reproduce(self) -> Scenario:
        """Fit the last of four cells, and write the report."""

        def command(folder: Path) -> list[str]:
            options = ["--budget", "smoke", "--k", "2", "--out", str(folder / "out")]
            return ["metatl", "reproduce", "figure2", "--data", f"ring={self.data}", *options]

        def finished(folder: Path) -> dict[str, bytes]:
            found = folder.glob("out/cells/*/*/*/cell.json")
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

        def check(folder: Path, before: Path, _: Path) -> list[str]:
            return ["a finished cell is lost"] if finished(before).items() - finished(folder).items() else []

        before = self._before("reproduce")
        self._run(*command(before), folder=before, in_process=True)
        for path in (before / "out").glob("figure2*"):
            path.unlink()
        cells = sorted((before / "out").glob("cells/*/*/metatl-*"))
        shutil.rmtree(cells[-1])
        return self._make("reproduce", before, command, check=check, finished=finished, in_process=True)


def _training(folder: Path, _: Path, __: Path) -> list[str]:
    """A finished run can be loaded; an unfinished one is refused by an error of metatl."""
    try:
        metatl.load_run(folder / "run")
    except MetatlError as error:
        return [f"finished, but: {error}"] if (folder / "run" / "metrics.json").exists() else []
    except BaseException as error:  # noqa: BLE001 (a panic of polars is no Exception)
        return [f"load_run raises {type(error).__name__}"]
    return []


def _old_or_new_run(folder: Path, before: Path, reference: Path) -> list[str]:
    """`load_run` answers with the old run or the new one, whole."""
    try:
        metatl.load_run(folder / "run")
    except MetatlError:
        hidden = any(path.name == "best.safetensors" for path in folder.rglob(".*/best.safetensors"))
        return ["only a hidden folder holds a run" if hidden else "no run is left"]
    if run_bytes(folder) in (run_bytes(before), run_bytes(reference)):
        return []
    return ["neither the old run nor the new one"]


def run_bytes(folder: Path) -> dict[str, bytes]:
    """What `load_run` reads of the run in a folder."""
    names = ("best.safetensors", "items.parquet", "run.json")
    return {name: (folder / "run" / name).read_bytes() for name in names}


def _old_or_new_files(folder: Path, before: Path, reference: Path) -> list[str]:
    """Every output is the old file or the new one."""
    return [
        f"a part of {path.name}"
        for path in reference.iterdir()
        if content(folder / path.name, folder)
        not in (content(before / path.name, before), content(path, reference))
    ]


def faults_of(call: int, line: str) -> list[Fault]:
    """List all faults at a call, whose line of the log tells whether it writes."""
    kills = [Fault(call, Action.KILL)]
    if " write " in line:
        kills.append(Fault(call, Action.KILL_HALFWAY))
    return [
        *kills,
        Fault(call, Action.FAIL_FROM_THEN_ON, errno.ENOSPC),
        Fault(call, Action.FAIL_ONCE, errno.EIO),
    ]


@dataclass
class Tally:
    """Counts of points and of what was wrong at them.

    Attributes
    ----------
    points : int
        Faults that came about.
    problems : Counter of str
        Points at which each problem was seen.
    examples : dict of str to str
        The first of these points.
    """

    points: int = 0
    bad: int = 0

    def __post_init__(self):
        self.problems: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, problems: list[str], faults: tuple[Fault, ...], line: str) -> None:
        """Count a point."""
        self.points += 1
        self.bad += bool(problems)
        for problem in dict.fromkeys(problems):
            self.problems[problem] += 1
            self.examples.setdefault(problem, f"{', then '.join(map(str, faults))}: {line}")

    def __str__(self):
        rows = [
            f"{count:5} × {problem}  [{self.examples[problem]}]"
            for problem, count in self.problems.most_common()
        ]
        return "\n".join([f"{self.points} points, {self.bad} bad", *rows])
