"""The arithmetic task: disjoint splits, the same problems on every machine, gold answers checked independently."""

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

# The gold answer from the meaning of each kind's question, written independently of its `ways`
MEANING = {
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
    """Kind and numbers of a problem, from the text of its question and the wordings of its kind."""
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
        assert int(row["answer"]) == MEANING[kind.name](**numbers), row


def test_one_problem_worked_by_hand():
    """4 boxes of 7 are 28, and 15 more are 43, in both ways of the kind."""
    kind = next(k for k in arithmetic.KINDS if k.name == "boxes_gain")
    numbers = {"a": 4, "b": 7, "c": 15}
    assert arithmetic.solve("a*b p+c", numbers) == (["4*7=28", "28+15=43"], 43)
    assert {arithmetic.solve(way, numbers)[1] for way in kind.ways} == {43}


def test_results_that_are_not_positive_integers_are_no_solution():
    """5-9 < 0; 9-9 = 0; 7/2 is not an integer."""
    assert arithmetic.solve("a-b", {"a": 5, "b": 9}) is None
    assert arithmetic.solve("a-b", {"a": 9, "b": 9}) is None
    assert arithmetic.solve("a/2 p+b", {"a": 7, "b": 1}) is None


@pytest.mark.parametrize("level", LEVELS)
def test_every_line_of_a_solution_is_right_and_the_last_result_is_boxed(level):
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
    """The calculation of each problem, from the text of its question: kind and sorted numbers."""
    return [(kind.name, *sorted(numbers.values())) for kind, numbers in map(read_numbers, rows)]


@pytest.mark.parametrize("level", LEVELS)
def test_splits_have_no_calculation_in_common(level):
    """So that no problem of one split has the same calculation in other words as one of the other; for all seeds."""
    train = set(calculations(arithmetic.problems(level, "train", 5000, seed=0)))
    test = set(calculations(arithmetic.problems(level, "test", 3000, seed=1)))
    assert len(train) == 5000 and len(test) > 1250
    assert not train & test


@pytest.mark.parametrize("level", LEVELS)
def test_a_thousand_problems_have_a_thousand_different_calculations(level):
    """Confidence intervals over 1,000 problems assume so; other names and wordings are not another calculation."""
    for split in ("train", "test"):
        drawn = calculations(arithmetic.problems(level, split, 2000, seed=0))
        assert len(set(drawn[:1000])) == len(set(drawn[1000:])) == 1000


@pytest.mark.parametrize("level", LEVELS)
def test_five_successive_thousands_of_train_problems_have_no_calculation_in_common(level):
    """Thousand t draws from share 1 + t % 5: thousands 0 to 4 are disjoint, and so are 3 to 7; 5 and 0 are not."""
    drawn = calculations(arithmetic.problems(level, "train", 8000, seed=0))
    assert len(set(drawn[:5000])) == len(set(drawn[3000:])) == 5000
    assert set(drawn[5000:6000]) & set(drawn[:1000]) and not set(drawn[5000:6000]) & set(drawn[1000:5000])


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
def test_rows_of_the_configs_that_teach_train_and_select_have_no_calculation_in_common(level, teach, train):
    """A model answers a calculation that it was taught too well, and rows for selection must not be trained on."""
    ranges = {"alone": [rows_of(teach), rows_of(train)]}
    for name in ("study_small", "study_questions"):
        for task in study_file.load(str(ROOT / "configs" / f"{name}.yaml"), []).tasks:
            if task.runs["sft"] == str(train):
                trained = config.load(str(train), task.set).task.train_rows
                ranges[name] = [rows_of(teach), trained, *([task.select] if task.select else [])]
    most = max(last for each in ranges.values() for _, last in each)
    drawn = calculations(arithmetic.problems(level, "train", most, tasks.ARITHMETIC_SEED))
    for each in ranges.values():
        used = [c for first, last in each for c in set(drawn[first:last])]
        assert len(used) == len(set(used))
        distinct = [len(set(drawn[first:last])) for first, last in each]
        assert distinct == [last - first for first, last in each]


@pytest.mark.parametrize("level", LEVELS)
def test_questions_and_ids_are_unique_and_most_kinds_have_several_wordings_and_solutions(level):
    rows = arithmetic.problems(level, "train", 3000, seed=0)
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 3000
    kinds = [k for k in arithmetic.KINDS if k.level == level]
    assert sum(len(k.wordings) > 1 for k in kinds) >= len(kinds) - 2
    assert sum(len(k.ways) > 1 for k in kinds) >= len(kinds) - 2
    shares = Counter(row["type"] for row in rows)
    assert min(shares.values()) > 50


def test_a_larger_count_begins_with_the_problems_of_a_smaller_one():
    many, few = (arithmetic.problems("hard", "train", count, seed=5) for count in (300, 100))
    assert many[:100] == few


def test_other_seeds_give_other_problems():
    first, second = (arithmetic.problems("easy", "train", 200, seed) for seed in (0, 1))
    assert not {row["id"] for row in first} & {row["id"] for row in second}
    assert [row["question"] for row in first] != [row["question"] for row in second]


def test_problems_are_the_same_in_every_process():
    """Python's own hash of strings differs between processes; the problems must not depend on it."""
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
def test_bad_arguments_are_an_error(arguments):
    with pytest.raises(ValueError, match="expected level easy or hard, split train or test, count at least"):
        arithmetic.problems(*arguments, seed=0)
