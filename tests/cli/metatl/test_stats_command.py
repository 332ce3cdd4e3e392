"""`metatl stats`, and the way in which commands fail."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import datetime, timezone
from itertools import pairwise

import click
import pytest
from click.testing import CliRunner

from metatl import datasets
from metatl.cli.errors import Command, Group, one_line_errors
from metatl.cli.metatl.stats import stats
from metatl.data.dataset_statistics import statistics
from metatl.exceptions import DataError, MetatlError

WINES = """\
data               wines
rows               150,000 read, dropped: none
largest user       1006657 with 67 rows (0.0%)
users              10,461
items              851
interactions       149,178 of 150,000
mean length        14.26
T                  2017-12-09
training users     4,917
cold users, K = 2  2,528
cold users, K = 3  2,520
cold users, K = 4  2,497
time ties          0.0%
span               2012-04-19 to 2021-12-31
fingerprint        7b737ab06157753442fd213609b226f662a0271e3d00d7fec02d882ab3257257
"""


def test_the_wines():
    result = CliRunner().invoke(stats, ["wines"])
    assert result.exit_code == 0
    assert result.output == WINES


def test_statistics_against_dictionaries():
    wines = datasets.xwines()
    raw = {}
    for user, item, time in zip(
        wines.users.tolist(), wines.items.tolist(), wines.timestamps.tolist(), strict=True
    ):
        raw.setdefault(user, []).append((time, item))
    counts = {}
    for history in raw.values():
        for _, item in history:
            counts[item] = counts.get(item, 0) + 1
    histories = [sorted(row for row in history if counts[row[1]] >= 20) for history in raw.values()]
    histories = [history for history in histories if history]
    cutoff = datetime(2018, 1, 1, tzinfo=timezone.utc)
    limit = int(cutoff.timestamp()) * 1_000_000
    trained = [
        [item for time, item in history if time < limit] for history in histories if history[0][0] < limit
    ]
    trained = [items for items in trained if len(items) >= 5]
    known = {item for items in trained for item in items}
    new = [[item for _, item in history if item in known] for history in histories if history[0][0] >= limit]
    found = statistics(wines, cutoff=cutoff, min_item_count=20, ks=(1, 5, 50))
    assert found.num_users == len(histories)
    assert found.num_items == sum(count >= 20 for count in counts.values())
    assert found.num_interactions == sum(map(len, histories))
    assert found.mean_length == sum(map(len, histories)) / len(histories)
    assert found.cutoff == cutoff
    assert found.num_train_users == len(trained)
    assert found.num_cold_users == {k: sum(len(items) > k for items in new) for k in (1, 5, 50)}
    ties = [first[0] == second[0] for history in histories for first, second in pairwise(history)]
    assert found.tie_share == sum(ties) / len(ties)
    times = [time for history in histories for time, _ in history]
    assert found.first.timestamp() * 1_000_000 == min(times)
    assert found.last.timestamp() * 1_000_000 == max(times)


def test_a_cutoff_without_new_users_shows_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,item,date\n" + "".join(f"{user},1,2020-01-{user:02}\n" for user in range(1, 20)))
    result = CliRunner().invoke(stats, [str(path), "--cutoff", "2030-01-01"])
    assert result.exit_code == 0
    assert "T                  2030-01-01\n" in result.output
    assert "cold users, K = 3  0\n" in result.output
    result = CliRunner().invoke(stats, [str(path), "--min-item-count", "20"])
    assert result.exit_code == 2
    assert (
        result.stderr
        == "Error: no item has 20 interactions, the most frequent has 19; choose a smaller --min-item-count\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", ": found an empty file, expected a header and interactions"),
        (
            "text.csv",
            b"user,item,time\n1,2,x\n",
            ", line 2, column 'time': found 'x', expected seconds since 1970",
        ),
        (
            "missing.csv",
            b"user,time\n1,2\n",
            ", line 1: found no item column among 'user', 'time'; expected one of",
        ),
        ("none.csv", None, ": found no such file"),
    ],
)
def test_bad_data_end_in_one_line_and_exit_code_2(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    command = [sys.executable, "-c", "from metatl.cli.metatl.stats import stats; stats()", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {path}{message}")
    assert result.stderr.count("\n") == 1


def failing(error, cls):
    @click.command(cls=Command if cls is Command else click.Command)
    def fail():
        raise error

    if cls is Group:
        group = Group("main")
        group.add_command(fail, "fail")
        return group, ["fail"]
    return fail, []


@pytest.mark.parametrize("cls", [Command, Group])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MetatlError("first\nsecond"), 2, "Error: first second\n"),
        (DataError("found x", file="a.csv", line=3), 2, "Error: a.csv, line 3: found x\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.bin"),
            2,
            "Error: a.bin: No space left on device\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "Error: No space left on device\n"),
        (OSError("odd"), 2, "Error: odd\n"),
        (TimeoutError(), 2, "Error: TimeoutError\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(cls, error, code, message):
    command, arguments = failing(error, cls)
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.stderr) == (code, message)


@pytest.mark.parametrize("cls", [Command, Group])
def test_faults_of_ours_keep_their_traceback(cls):
    command, arguments = failing(ZeroDivisionError("ours"), cls)
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_closed_pipe_is_left_to_click():
    with pytest.raises(BrokenPipeError), one_line_errors():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_as_a_decorator():
    @one_line_errors()
    def fail():
        raise MetatlError("found x")

    with pytest.raises(click.ClickException, match="found x"):
        fail()


def test_help_loads_neither_torch_nor_polars():
    program = """
import sys
from metatl.cli.metatl.stats import stats
try:
    stats(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "polars", "numpy"} & set(sys.modules), "slow imports"
"""
    environment = {**os.environ, "COLUMNS": "80"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert "--cutoff-quantile" in result.stdout
