"""Wrong arguments end a command with one line that says where its help is."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings

import click
import pytest
from click.testing import CliRunner

from metatl.cli.errors import Command
from metatl.cli.metatl import main
from metatl.cli.metatl_eval import main as evaluate
from metatl.exceptions import ConfigError, MetatlWarning


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (main.main, ["bogus"], "No such command 'bogus'; see 'metatl --help'"),
        (main.main, ["--bogus"], "No such option '--bogus'; see 'metatl --help'"),
        (main.main, ["data", "bogus"], "No such command 'bogus'; see 'metatl data --help'"),
        (main.main, ["train", "--bogus"], "'--bogus'.*; see 'metatl train --help'"),
        (main.main, ["train", "--data"], "Option '--data' requires an argument"),
        (main.main, ["train", "--data", "wines", "--k", "x"], "'--k': 'x' .*; see 'metatl train --help'"),
        (main.main, ["recommend"], "Missing argument 'RUN'; see 'metatl recommend --help'"),
        (main.main, ["reproduce", "table2", "--k", "1,x"], "found '1,x', .*; see 'metatl reproduce table2"),
        (evaluate.main, ["compare"], "Missing argument 'FILES...'; see 'metatl-eval compare --help'"),
        (evaluate.main, ["scores", "--bogus"], "'--bogus'.*; see 'metatl-eval scores --help'"),
    ],
)
def test_a_usage_error_is_one_line(command, arguments, says):
    name = "metatl" if command is main.main else "metatl-eval"
    result = CliRunner().invoke(command, arguments, prog_name=name)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert re.search(says, line)


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (
            main.main,
            ["recommend", "run", "--history", "\udcff"],
            r"'--history': found b'\xff', expected UTF-8",
        ),
        (main.main, ["stats", "\udcff.csv"], r"'DATA': found b'\xff.csv', expected UTF-8"),
        (evaluate.main, ["run-\udcff"], r"'RUN...': found b'run-\xff', expected UTF-8"),
        (evaluate.main, ["scores", "c.parquet", "s\udcff.npy"], r"found b's\xff.npy', expected UTF-8"),
        (evaluate.main, ["scores", "c.parquet", "s.npy", "--name", "\udcff"], r"'--name': found b'\xff'"),
        (main.main, ["train", "--out", "run", "--set", "\udcff=1"], "no field"),
    ],
)
def test_bytes_that_are_not_utf_8_are_one_line(command, arguments, says):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize("arguments", [[], ["data"], ["reproduce"]])
def test_a_group_without_a_command_shows_its_help(arguments):
    result = CliRunner().invoke(main.main, arguments, prog_name="metatl")
    assert "Usage: metatl" in result.output
    assert "Commands:" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["data", "--help"]])
def test_help_is_no_error(arguments):
    result = CliRunner().invoke(main.main, arguments, prog_name="metatl")
    assert result.exit_code == 0
    assert "Usage: metatl" in result.stdout


def test_a_warning_is_one_line_each_time_it_is_given():
    @click.command(cls=Command)
    def command():
        for _ in range(2):
            warnings.warn("first line\nand second", MetatlWarning, stacklevel=1)
        raise ConfigError("then an error")

    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    assert result.stderr == "warning: first line and second\n" * 2 + "Error: then an error\n"
    assert result.stdout == ""


def test_warnings_of_others_stay_as_they_are():
    @click.command(cls=Command)
    def command():
        warnings.warn("of a library", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="of a library"):
        CliRunner().invoke(command, [], catch_exceptions=False)


def test_a_library_that_does_not_fit_into_memory_is_one_line():
    @click.command(cls=Command)
    def command():
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2
    line = "Error: out of memory: libtorch_cpu.so: failed to map segment from shared object; allow more\n"
    assert result.stderr == line


def test_a_library_that_is_missing_keeps_its_traceback():
    @click.command(cls=Command)
    def command():
        raise ImportError("no module named x")

    with pytest.raises(ImportError, match="no module named x"):
        CliRunner().invoke(command, [], catch_exceptions=False)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
@pytest.mark.parametrize("mebibytes", [300, 1000, 4096])
def test_a_low_limit_of_the_address_space_is_one_line(mebibytes):
    import resource

    limit = mebibytes * 2**20
    command = "from metatl.cli.metatl.main import main; main(['stats', 'wines'], prog_name='metatl')"
    result = subprocess.run(
        [sys.executable, "-c", command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert re.fullmatch(
        r"Error: out of memory: found a limit of \d\.\d GiB on .* \(ulimit -v\).*\n", result.stderr
    )
