"""The arithmetic task: splits that share nothing, equal problems everywhere, gold worked out anew."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from east import tasks
from east.run import config
from east.study import study_file
from east.toy import arithmetic
from tests.conftest import ROOT

LEVELS = ("easy", "hard")

# Gold by the sense of each kind, written without looking at its `ways`.
SENSE = {
    "gain": lambda a, b: a + b,
    "loss": lambda a, b: a - b,
    "gain_loss": lambda a, b, c: a + b - c,
    "boxes_gain": lambda a, b, c: a * b + c,
    "boxes_loss": lambda a, b, c: a * b - c,
    "together_more": lambda a, b: a + (a + b),
    "twice_gain": lambda a, b: 2 * a + b,
    "shop": lambda a, b, c, d: d - (a * b + c),
    "two_boxes": lambda a, b, c, d: a * b + c * d,
    "three_people": lambda a, b, c: a + (a + b) + (a + b - c),
    "twice_loss": lambda a, b: a + 2 * a - b,
    "half_gain": lambda a, b: a - a // 2 + b,
    "share": lambda a, b, c, d: a * b // c + d,
    "week": lambda a, b: b - 7 * a,
}


def read_numbers(row):
    """Kind and numbers of a problem, read back from the question's text through the wordings."""
    kind = next(k for k in arithmetic.KINDS if k.name == row["type"])
    for wording in kind.wordings:
        pattern = re.sub(r"\\\{([abcd])\\\}", r"(?P<\1>\\d+)", re.escape(wording))
        pattern = re.sub(r"\\\{(?:name|other|third|item)\\\}", r"[A-Za-z]+", pattern)
        match = re.search(pattern + "$", row["question"])
        if match:
            return kind, {name: int(value) for name, value in sorted(match.groupdict().items())}
    raise AssertionError(f"no wording of {kind.name} matches {row['question']!r}")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_gold_is_what_the_question_asks_for(level, split):
    rows = arithmetic.problems(level, split, 2000, seed=3)
    assert {row["type"] for row in rows} == {k.name for k in arithmetic.KINDS if k.level == level}
    for row in rows:
        kind, numbers = read_numbers(row)
        assert int(row["answer"]) == SENSE[kind.name](**numbers), row


def test_one_problem_worked_by_hand():
    """4 boxes of 7 are 28, and 15 more make 43; 15+28 is the other way to say it."""
    kind = next(k for k in arithmetic.KINDS if k.name == "boxes_gain")
    numbers = {"a": 4, "b": 7, "c": 15}
    assert arithmetic.solve("a*b p+c", numbers) == (["4*7=28", "28+15=43"], 43)
    assert {arithmetic.solve(way, numbers)[1] for way in kind.ways} == {43}


def test_a_negative_or_fractional_result_is_no_solution():
    """5-9 < 0; 7/2 is no integer; 9-9 = 0 would leave nothing to count."""
    assert arithmetic.solve("a-b", {"a": 5, "b": 9}) is None
    assert arithmetic.solve("a-b", {"a": 9, "b": 9}) is None
    assert arithmetic.solve("a/2 p+b", {"a": 7, "b": 1}) is None


@pytest.mark.parametrize("level", LEVELS)
def test_every_line_of_a_solution_is_true_and_the_last_is_boxed(level):
    for row in arithmetic.problems(level, "train", 2000, seed=0):
        *lines, boxed = row["solution"].split("\n")
        for line in lines:
            left, operator, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", line).groups()
            assert {
                "+": int(left) + int(right),
                "-": int(left) - int(right),
                "*": int(left) * int(right),
                "/": int(left) / int(right),
            }[operator] == int(result), row
        assert lines[-1].endswith("=" + row["answer"])
        assert boxed == "\\boxed{" + row["answer"] + "}"


def calculations(rows):
    """What each problem asks for, read back from its text: kind and sorted numbers."""
    return [(kind.name, *sorted(numbers.values())) for kind, numbers in map(read_numbers, rows)]


@pytest.mark.parametrize("level", LEVELS)
def test_splits_share_no_problem(level):
    """Not even up to wording, names and the order of the numbers, and whatever the seed."""
    train = set(calculations(arithmetic.problems(level, "train", 5000, seed=0)))
    test = set(calculations(arithmetic.problems(level, "test", 3000, seed=1)))
    assert len(train) == 5000 and len(test) > 1250
    assert not train & test


@pytest.mark.parametrize("level", LEVELS)
def test_a_thousand_problems_are_a_thousand_calculations(level):
    """An interval over 1,000 problems counts on 1,000: names and wordings make no new calculation."""
    for split in ("train", "test"):
        found = calculations(arithmetic.problems(level, split, 2000, seed=0))
        assert len(set(found[:1000])) == len(set(found[1000:])) == 1000


@pytest.mark.parametrize("level", LEVELS)
def test_any_five_thousands_of_train_problems_in_a_row_share_no_calculation(level):
    """Thousand t draws from share 1 + t % 5: thousands 0 to 4 are disjoint, so are 3 to 7; thousand 5 meets 0 again."""
    found = calculations(arithmetic.problems(level, "train", 8000, seed=0))
    assert len(set(found[:5000])) == len(set(found[3000:])) == 5000
    assert set(found[5000:6000]) & set(found[:1000]) and not set(found[5000:6000]) & set(found[1000:5000])


def rows_of(path):
    return config.load(path).task.train_rows


SMALL = ROOT / "configs" / "study_small"


@pytest.mark.parametrize(
    ("level", "teach", "train"),
    [
        ("easy", SMALL / "easy_teach.yaml", SMALL / "easy_sft.yaml"),
        ("hard", SMALL / "hard_teach.yaml", SMALL / "hard_sft.yaml"),
        ("easy", ROOT / "configs" / "quickstart_teach.yaml", ROOT / "configs" / "quickstart.yaml"),
    ],
    ids=["easy", "hard", "quickstart"],
)
def test_shipped_rows_that_teach_train_and_choose_share_no_calculation(level, teach, train):
    """A backbone that was taught a calculation would answer it too well, and a held-out row must be held out."""
    ranges = {"alone": [rows_of(teach), rows_of(train)]}
    for name in ("study_small", "study_questions"):
        for task in study_file.load(str(ROOT / "configs" / f"{name}.yaml"), []).tasks:
            if task.runs["sft"] == str(train):
                trained = config.load(str(train), task.set).task.train_rows
                ranges[name] = [rows_of(teach), trained, *([task.select] if task.select else [])]
    most = max(last for each in ranges.values() for _, last in each)
    found = calculations(arithmetic.problems(level, "train", most, tasks.ARITHMETIC_SEED))
    for each in ranges.values():
        used = [c for first, last in each for c in set(found[first:last])]
        assert len(used) == len(set(used))
        distinct = [len(set(found[first:last])) for first, last in each]
        assert distinct == [last - first for first, last in each]


@pytest.mark.parametrize("level", LEVELS)
def test_questions_and_ids_are_unique_and_every_kind_is_said_and_solved_in_several_ways(level):
    rows = arithmetic.problems(level, "train", 3000, seed=0)
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 3000
    kinds = [k for k in arithmetic.KINDS if k.level == level]
    assert sum(len(k.wordings) > 1 for k in kinds) >= len(kinds) - 2
    assert sum(len(k.ways) > 1 for k in kinds) >= len(kinds) - 2
    shares = Counter(row["type"] for row in rows)
    assert min(shares.values()) > 50


def test_a_larger_count_begins_with_the_smaller():
    many, few = (arithmetic.problems("hard", "train", count, seed=5) for count in (300, 100))
    assert many[:100] == few


def test_seeds_differ():
    first, second = (arithmetic.problems("easy", "train", 200, seed) for seed in (0, 1))
    assert not {row["id"] for row in first} & {row["id"] for row in second}
    assert [row["question"] for row in first] != [row["question"] for row in second]


def test_equal_in_every_process():
    """Python's own string hash changes between processes; the problems must not."""
    program = (
        "import hashlib, json; from east.toy import arithmetic; "
        "rows = [arithmetic.problems(l, s, 200, 7) for l in ('easy', 'hard') for s in ('train', 'test')]; "
        "print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(runs) == 1


@pytest.mark.parametrize("arguments", [("medium", "train", 5), ("easy", "dev", 5), ("easy", "train", 0)])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected level easy or hard, split train or test, count at least"):
        arithmetic.problems(*arguments, seed=0)
