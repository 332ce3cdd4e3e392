"""The forms in which data sets are published: one gives what the other gives, none is taken for another."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from metatl.cli.metatl.stats import stats
from metatl.data.interactions import Interactions
from metatl.data.readers import text_blocks
from metatl.data.readers.headerless_files import HEADERLESS_FORMS, name_fields
from metatl.data.readers.interaction_files import read_interactions
from metatl.exceptions import DataError
from property_settings import IN_ONE_FOLDER

PACIFIC = timezone(timedelta(hours=-7))


@pytest.fixture(scope="module")
def rows():
    """Rows whose ids are as Amazon writes them; no two of a user are at the same time."""
    numbers = random.Random(0)  # noqa: S311 (test data)
    users = [f"A{numbers.randrange(10**11):013}" for _ in range(40)]
    items = [f"B00{numbers.randrange(10**7):07}" for _ in range(30)]
    items += [f"{numbers.randrange(10**9):09}X" for _ in range(30)]
    times = numbers.sample(range(1_200_000_000, 1_400_000_000), 500)
    return [(numbers.choice(users), numbers.choice(items), time) for time in times]


@pytest.fixture(scope="module")
def fingerprint(rows):
    return Interactions.from_frame(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    ).fingerprint


def lines(texts):
    return "".join(f"{text}\n" for text in texts).encode()


def objects(values):
    return lines(map(json.dumps, values))


def weekday(time):
    return datetime.fromtimestamp(time, PACIFIC).strftime("%a %b %d %H:%M:%S %z %Y")


def clock(time):
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


FORMS = {
    "ratings_Electronics.csv": lambda rows: lines(f"{u},{i},4.0,{t}" for u, i, t in rows),
    "Electronics_2018.csv": lambda rows: lines(f"{i},{u},4.0,{t}" for u, i, t in rows),
    "reviews_Electronics_2014.json": lambda rows: objects(
        {
            "reviewerID": u,
            "asin": i,
            "reviewerName": "J. McDonald",
            "helpful": [2, 3],
            "reviewText": 'It has "quotes", commas,\nand \u2028 ends of lines.',
            "overall": 5.0,
            "summary": "Heavenly {music}",
            "unixReviewTime": t,
            "reviewTime": "09 13, 2009",
        }
        for u, i, t in rows
    ),
    "Electronics_2018.json": lambda rows: objects(
        {
            "overall": 5.0,
            "verified": True,
            "reviewTime": "09 1, 2016",
            "reviewerID": u,
            "asin": i,
            "style": {"Size:": " 6 {inch}"},
            "reviewerName": "Anna",
            "unixReviewTime": t,
        }
        for u, i, t in rows
    ),
    "Electronics_2023.jsonl": lambda rows: objects(
        {
            "rating": 5.0,
            "title": "Good",
            "images": [],
            "asin": "B000000000",
            "parent_asin": i,
            "user_id": u,
            "timestamp": 1_000 * t,
            "helpful_vote": 0,
        }
        for u, i, t in rows
    ),
    "Electronics_2023.csv": lambda rows: lines(
        ["user_id,parent_asin,rating,timestamp", *(f"{u},{i},5.0,{1_000 * t}" for u, i, t in rows)]
    ),
    "goodreads_interactions_dedup.json": lambda rows: objects(
        {
            "user_id": u,
            "book_id": i,
            "review_id": "5cd416f3efc3f944fce4ce2db2290d5e",
            "is_read": False,
            "rating": 0,
            "review_text_incomplete": "",
            "date_added": weekday(t),
            "date_updated": weekday(1_500_000_000),
            "read_at": "",
            "started_at": "",
        }
        for u, i, t in rows
    ),
    "yelp_academic_dataset_review.json": lambda rows: objects(
        {"review_id": "KU_O5udG", "user_id": u, "business_id": i, "stars": 3.0, "text": "x", "date": clock(t)}
        for u, i, t in rows
    ),
    "ml-1m.dat": lambda rows: lines(f"{u}::{i}::5::{t}" for u, i, t in rows),
    "ml-10m.dat": lambda rows: lines(f"{u}::{i}::4.5::{t}" for u, i, t in rows),
    "movietweetings.dat": lambda rows: lines(f"{u}::{i}::10::{t}" for u, i, t in rows),
    "ml-25m.csv": lambda rows: lines(
        ["userId,movieId,rating,timestamp", *(f"{u},{i},3.5,{t}" for u, i, t in rows)]
    ),
    "XWines_Slim_150K_ratings.csv": lambda rows: lines(
        [
            "RatingID,UserID,WineID,Vintage,Rating,Date",
            *(f"{n},{u},{i},N.V.,4.5,{clock(t)}" for n, (u, i, t) in enumerate(rows)),
        ]
    ),
    "amazon.inter": lambda rows: lines(
        [
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
            *(f"{u}\t{i}\t4\t{t}" for u, i, t in rows),
        ]
    ),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("name", FORMS)
def test_every_published_form_gives_the_same_interactions(tmp_path, rows, fingerprint, name, packed):
    content = FORMS[name](rows)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_interactions(path).fingerprint == fingerprint
    without_suffix = tmp_path / "data"
    if not name.endswith(".inter"):
        path.rename(without_suffix)
        assert read_interactions(without_suffix).fingerprint == fingerprint


@pytest.mark.parametrize("name", [name for name in FORMS if "json" in name])
@pytest.mark.parametrize("block_bytes", [400, 3_000])
def test_blocks_of_json_lines_change_nothing(tmp_path, rows, fingerprint, name, block_bytes, monkeypatch):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / name
    content = FORMS[name](rows).replace(b"\n", b"\r\n\n", 70)
    path.write_bytes(b"\xef\xbb\xbf\n\n" + content.removesuffix(b"\n"))
    assert read_interactions(path).fingerprint == fingerprint


@pytest.mark.parametrize(
    "name", ["ratings_Electronics.csv", "goodreads_interactions_dedup.json", "Electronics_2023.jsonl"]
)
def test_commands_read_them(tmp_path, rows, fingerprint, name):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(FORMS[name](rows)))
    result = CliRunner().invoke(stats, [str(path), "--min-item-count", "1"])
    assert result.exit_code == 0, result.stderr
    assert fingerprint in result.stdout


def test_names_that_are_given_choose_the_fields_of_objects(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(objects([{"who": 7, "what": "x", "when": 5, "user": "b", "item": 1.5, "ts": 9}]))
    interactions = read_interactions(path, user_column="who", item_column="what", timestamp_column="when")
    assert interactions.user_ids.to_list() == [7]
    assert interactions.item_ids.to_list() == ["x"]
    assert interactions.timestamps.tolist() == [5_000_000]
    assert read_interactions(path).item_ids.to_list() == ["1.5"]
    with pytest.raises(DataError, match="line 1: found no column 'x' among 'who', 'what', 'when', 'user'"):
        read_interactions(path, user_column="x")


def test_milliseconds_are_known_by_the_names_and_a_unit_that_is_given_wins(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(objects([{"user_id": "u", "parent_asin": "i", "timestamp": 1_588_687_728_923}]))
    assert read_interactions(path).timestamps.tolist() == [1_588_687_728_923_000]
    path.write_bytes(objects([{"user_id": "u", "parent_asin": "i", "timestamp": 1_588_687_728}]))
    assert read_interactions(path, timestamp_unit="s").timestamps.tolist() == [1_588_687_728_000_000]
    both = {"user_id": "u", "parent_asin": "i", "timestamp": 1_588_687_728_923, "when": 1_588_687_728}
    path.write_bytes(objects([both]))
    assert read_interactions(path, timestamp_column="when").timestamps.tolist() == [1_588_687_728_000_000]
    path.write_bytes(objects([{"user_id": "u", "parent_asin": "i", "timestamp": "2020-05-05"}]))
    assert read_interactions(path).timestamps.tolist() == [1_588_636_800_000_000]


OBJECT = '{"user_id": "u", "item_id": "i", "timestamp": 1300000000}'

BAD = [
    # Without a header, and in none of the forms.
    ("a.csv", "AB,0321732944,5.0,1341100800", ", line 1: found no user column among 'AB'"),
    ("a.csv", "A2CX7LUOHB2NDG,0321732944,5.0", ", line 1: found no user column"),
    ("a.csv", "A2CX7LUOHB2NDG,0321732944,1341100800,5.0", ", line 1: found no user column"),
    ("a.csv", "A2CX7LUOHB2NDG,A2CX7LUOHB,5.0,1341100800", ", line 1: found no user column"),
    ("a.csv", "0321732944,0321732944,5.0,1341100800", ", line 1: found no user column"),
    ("a.csv", "A2CX7LUOHB2NDG,0321732944,50,1341100800", ", line 1: found no user column"),
    ("a.csv", "A2CX7LUOHB2NDG,0321732944,5.0,5", ", line 1: found no user column"),
    ("a.csv", "A2CX7LUOHB2NDG;0321732944;5.0;1341100800", ", line 1: found no user column"),
    ("a.csv", "1,2,3,1341100800", ", line 1: found no user column among '1', '2', '3', '1341100800'"),
    # In one of the forms, and wrong later on.
    ("a.csv", "A2CX7LUOHB2NDG,0321732944,5.0,1341100800\nA2CX7LUOHB2NDG,0321732944,5.0", ", line 2: found 3"),
    (
        "a.csv",
        "A2CX7LUOHB2NDG,0321732944,5.0,1341100800\n\nA2CX7LUOHB2NDG,0321732944,5.0,x",
        ", line 3, column 'timestamp': found 'x'",
    ),
    # MovieLens' other files, and ratings without a time.
    ("movies.dat", "1::Toy Story (1995)::Animation|Comedy", "line 1, column 'timestamp': found 'Animation|"),
    ("users.dat", "1::F::1::10::48067", ", line 1: found 5 fields and no header"),
    ("users.dat", "1::177651718", ", line 1: found 2 fields and no header"),
    ("ratings.dat", "1::1193::5", ", line 1: found '5' and no header, expected a timestamp as the third"),
    ("ratings.dat", "1::1193::978300760::5", ", line 1: found '978300760' and no header, expected a rating"),
    # JSON.
    ("a.json", "", ": found no JSON lines, expected a file that starts with {"),
    ("a.json", f"[{OBJECT}]", ": found no JSON lines, expected a file that starts with {"),
    ("a.jsonl.gz", "user,item,time\n1,2,3", ": found no JSON lines"),
    ("a.json", "{'user_id': 'u'}", ", line 1: found no JSON (Expecting property name"),
    ("a.json", f"{OBJECT}\n\n{OBJECT}\n{OBJECT[:-1]}\n{OBJECT}", ", line 4: found no JSON (Expecting ','"),
    ("a.json", f"{OBJECT}\n{OBJECT}{OBJECT}", ", line 2: found no JSON (Extra data"),
    ("a.json", f"{OBJECT}\n[1]\n", ", line 2: found JSON that is no object"),
    ("a.json", f"{OBJECT}\nnull\n", ", line 2: found JSON that is no object"),
    ("a.json", f'{OBJECT}\n{{"a": NaN}}', ", line 2: found no JSON among '{\"a\": NaN}'"),
    ("a.json", f"{OBJECT}\n" + '{"a":' * 5_000, ", line 2: found JSON that is nested too deeply"),
    ("a.json", '{"a": ' * 3 + "1" + "}" * 3, ", line 1: found no user column among 'a'"),
    (
        "a.json",
        '{"user_id": 1, "item_id": 2}',
        ", line 1: found no timestamp column among 'user_id', 'item_id'",
    ),
    (
        "a.json",
        '\n{"user": {"id": 1}, "item": 2, "ts": 3}',
        ", line 2, column 'user': found a list or an object",
    ),
    (
        "a.json",
        f'{OBJECT}\n{{"user_id": "u", "item_id": "i"}}',
        ", line 2, column 'timestamp': found nothing",
    ),
    (
        "a.json",
        f'{OBJECT}\n\n{{"user_id": null}}',
        ", line 3, column 'user_id': found nothing, expected an id",
    ),
    ("a.json", f"{OBJECT}\n \t\n\r\n{OBJECT[:-1]}", ", line 4: found no JSON"),
    ("a.json", f'{OBJECT}\n \t\n\r\n{{"item_id": 1}}', ", line 4, column 'user_id': found nothing"),
    ("a.json", OBJECT.replace('"i"', '""'), ", line 1, column 'item_id': found nothing, expected an id"),
    ("a.json", OBJECT.replace("1300000000", "true"), ", line 1, column 'timestamp': found 'true'"),
    (
        "a.json",
        OBJECT.replace("1300000000", "1300000000000"),
        ", line 1, column 'timestamp': found '1300000000000', outside the years",
    ),
    (
        "a.json",
        '{"user_id": "u", "parent_asin": "i", "timestamp": 1300000000}',
        ", line 1, column 'timestamp': found '1300000000', expected milliseconds",
    ),
    (
        "a.csv",
        "user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0",
        ", line 1: found no timestamp column",
    ),
    # Dates that start with the day of the week.
    (
        "a.csv",
        "user,item,date\n1,2,Fri Oct 13 10:19:32 -0700 2017\n1,2,Sat Oct 13 10:19:32 -0700 2017",
        ", line 3, column 'date': found 'Sat Oct 13 10:19:32 -0700 2017', expected seconds",
    ),
    (
        "a.csv",
        "user,item,date\n1,2,Fri Oct 13 10:19:32 -0700 2017\n1,3,2017-10-13",
        ", line 3, column 'date': found '2017-10-13'",
    ),
    ("a.csv", "user,item,date\n1,2,Fri Oct 13 10:19:32 2017", ", line 2, column 'date': found 'Fri Oct 13"),
    (
        "a.json",
        json.dumps({"user_id": 1, "book_id": 2, "date_added": ""}),
        ", line 1, column 'date_added': found ''",
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD, ids=[f"{n}-{c[:30]}" for n, c, _ in BAD])
def test_what_is_no_published_form_is_told_in_one_line_that_says_where(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    with pytest.raises(DataError) as caught:
        read_interactions(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message
    assert len(message) < 600


def test_the_line_of_a_fault_is_found_in_any_block(tmp_path, monkeypatch):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", 200)
    path = tmp_path / "a.json"
    for fault in range(2, 40):
        texts = [OBJECT] * 40
        texts[fault - 1] = '{"user_id": }'
        path.write_text("\n".join(texts))
        with pytest.raises(DataError, match=f"line {fault}: found no JSON"):
            read_interactions(path)


def test_no_line_fits_two_forms():
    examples = {
        "Amazon 2014, ratings only": ("A2CX7LUOHB2NDG,0321732944,5.0,1341100800", ","),
        "Amazon 2018, ratings only": ("0321732944,A2CX7LUOHB2NDG,5.0,1341100800", ","),
        "MovieLens and MovieTweetings": ("1::1193::5::978300760", "::"),
        "MovieLens without ratings": ("1::1193::978300760", "::"),
    }
    assert set(examples) == {form.title for form in HEADERLESS_FORMS}
    for form in HEADERLESS_FORMS:
        text, separator = examples[form.title]
        assert name_fields(text.split(separator), separator) == list(form.fields)
        assert separator == form.separator


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers())
)


@IN_ONE_FOLDER
@given(
    st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from(["user_id", "item_id", "timestamp", "x"]), values, max_size=4),
            values,
            st.text(max_size=9),
        ),
        max_size=4,
    )
)
def test_no_json_gives_anything_but_interactions_or_a_data_error(tmp_path, rows):
    path = tmp_path / "a.json"
    path.write_text("\n".join([OBJECT, *(row if isinstance(row, str) else json.dumps(row) for row in rows)]))
    try:
        found = read_interactions(path, repeats="all").num_interactions
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (not raising is as good)
    else:
        assert found == 1 + sum(isinstance(row, dict) for row in rows)


def test_reviews_with_long_texts_need_little_memory(tmp_path):
    path = tmp_path / "reviews.json"
    review = {"reviewerID": "A", "asin": "B", "reviewText": "long " * 4_000, "unixReviewTime": 1_300_000_000}
    text = json.dumps(review) + "\n"
    with path.open("w") as file:
        for _ in range(100):
            file.write(text * 200)
    size = path.stat().st_size
    program = (
        "import resource\nfrom metatl import read_interactions\nfrom metatl.data.readers import text_blocks\n"
        "text_blocks._BLOCK_BYTES = 1 << 22\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"read_interactions({str(path)!r}, repeats='all')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert size > 350 << 20
    assert int(result.stdout) << 10 < 150 << 20
