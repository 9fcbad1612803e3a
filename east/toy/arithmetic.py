r"""Arithmetic word problems from a seeded generator: small substitutes for GSM8K (`easy`) and MATH (`hard`).

A `Kind` is data: the ranges of its numbers, several wordings of its question and several ways to solve it. A
calculation is a kind with its sorted numbers; its hash assigns it to one of six shares. The test split draws from the
first share. Each thousand problems of the train split draw from one of the other five, in turn. No thousand has a
calculation twice. So 1,000 test problems are 1,000 different calculations, none of which is in the train split; and any
five successive thousands of train problems are 5,000 different calculations, so that the rows that teach the model, the
rows that it is trained on and the rows by which settings are chosen can have no calculation in common.

A tiny model that was taught on few problems makes two sorts of errors. Systematic ones: a wrong sum, or a number or
operation misread in a rare wording, occurs in most of its responses to a question. And random ones: a wrong digit,
different in each response.
"""

import random
import zlib
from typing import NamedTuple

SHARES = 6  # of all calculations: one for the test split, the others for the thousands of the train split
NAMES = ("Tom", "Ann", "Ben", "Eva", "Max", "Mia", "Sam", "Zoe", "Leo", "Ida")
ITEMS = ("apples", "pens", "cards", "coins", "books", "stamps", "shells", "beads", "cakes", "balls")
DISTRACTORS = (
    "{name} is {x} years old.",
    "It is day {x} of the month.",
    "{name} lives in house {x}.",
)
BLOCK = 1000  # successive problems that draw from one share
RESULTS = "pqrs"  # names of the first, second, ... result of a solution


class Kind(NamedTuple):
    """One kind of problem. ways: solutions as lists of steps; "a*b p-c" is p = a*b, then q = p-c."""

    name: str
    level: str
    share: int  # relative frequency among the kinds of its level
    numbers: dict[str, tuple[int, int]]  # inclusive range of each number
    ways: tuple[str, ...]
    wordings: tuple[str, ...]


KINDS = (
    Kind(
        "gain", "easy", 2, {"a": (6, 99), "b": (2, 14)}, ("a+b", "b+a"),
        (
            "{name} has {a} {item} and buys {b}. How many now?",
            "There are {a} {item}. {name} adds {b}. How many now?",
            "{other} gives {name} {b} {item}. {name} had {a} before. How many now?",
        ),
    ),
    Kind(
        "loss", "easy", 2, {"a": (11, 99), "b": (2, 14)}, ("a-b",),
        (
            "{name} has {a} {item} and sells {b}. How many now?",
            "There are {a} {item}. {name} takes {b}. How many now?",
            "{name} gives {other} {b} {item}. {name} had {a} before. How many now?",
        ),
    ),
    Kind(
        "gain_loss", "easy", 4, {"a": (6, 79), "b": (2, 9), "c": (2, 9)}, ("a+b p-c", "a-c p+b"),
        (
            "{name} has {a} {item}, buys {b} and sells {c}. How many now?",
            "{name} had {a} {item}. {other} gave {b} and took {c}. How many now?",
            "{name} loses {c} of {a} {item} and then finds {b}. How many now?",
        ),
    ),
    Kind(
        "boxes_gain", "easy", 3, {"a": (2, 9), "b": (2, 9), "c": (2, 49)}, ("a*b p+c", "b*a p+c"),
        (
            "{name} has {a} boxes of {b} {item} and {c} more. How many {item}?",
            "{name} buys {a} bags of {b} {item}. {name} had {c} before. How many now?",
        ),
    ),
    Kind(
        "boxes_loss", "easy", 2, {"a": (2, 9), "b": (2, 9), "c": (2, 49)}, ("a*b p-c", "b*a p-c"),
        (
            "{name} has {a} boxes of {b} {item} and sells {c} {item}. How many now?",
            "{name} buys {a} bags of {b} {item}. {other} takes {c}. How many now?",
        ),
    ),
    Kind(
        "together_more", "easy", 2, {"a": (4, 49), "b": (2, 29)}, ("a+b a+p", "a+a p+b"),
        (
            "{name} has {a} {item}. {other} has {b} more. How many together?",
            "{other} has {b} {item} more than {name}. {name} has {a}. How many in all?",
        ),
    ),
    Kind(
        "twice_gain", "easy", 1, {"a": (4, 49), "b": (2, 14)}, ("a*2 p+b", "a+a p+b"),
        (
            "{other} has {a} {item}. {name} has twice as many and {b} more. How many has {name}?",
            "{name} has two times as many {item} as {other} and finds {b}. {other} has {a}. How many has {name}?",
        ),
    ),
    Kind(
        "shop", "hard", 3, {"a": (2, 9), "b": (3, 9), "c": (3, 19), "d": (60, 99)},
        ("a*b p+c d-q", "d-c a*b p-q"),
        (
            "{name} buys {a} {item} for {b} each and a bag for {c}. {name} gives {d}. What is the change?",
            "{name} has {d} dollars. A bag costs {c} and {a} {item} cost {b} each. What is left?",
        ),
    ),
    Kind(
        "two_boxes", "hard", 3, {"a": (2, 9), "b": (3, 12), "c": (2, 9), "d": (3, 12)},
        ("a*b c*d p+q", "c*d a*b q+p"),
        (
            "{name} has {a} boxes of {b} {item} and {c} boxes of {d}. How many {item}?",
            "{name} fills {a} bags with {b} {item} each, {other} fills {c} with {d}. How many {item} in all?",
        ),
    ),
    Kind(
        "three_people", "hard", 3, {"a": (11, 39), "b": (3, 19), "c": (3, 19)},
        ("a+b p-c a+p r+q", "a*3 b+b p+q r-c"),
        (
            "{name} has {a} {item}. {other} has {b} more, {third} {c} fewer than {other}. How many together?",
            "{other} has {b} {item} more than {name} and {third} {c} fewer than {other}. {name} has {a}. "
            "How many in all?",
        ),
    ),
    Kind(
        "twice_loss", "hard", 2, {"a": (11, 49), "b": (5, 39)}, ("a*2 a+p q-b", "a*3 p-b"),
        (
            "{name} has {a} {item}, buys twice as many and sells {b}. How many now?",
            "{other} has twice as many {item} as {name}. {name} has {a}. They lose {b}. How many now?",
        ),
    ),
    Kind(
        "half_gain", "hard", 2, {"a": (12, 78), "b": (5, 29)}, ("a/2 a-p q+b", "a/2 p+b"),
        (
            "{name} gives {other} half of {a} {item} and buys {b}. How many has {name}?",
            "Half of the {a} {item} of {name} are sold. {name} finds {b}. How many now?",
        ),
    ),
    Kind(
        "share", "hard", 2, {"a": (3, 9), "b": (4, 12), "c": (2, 9), "d": (2, 19)}, ("a*b p/c q+d",),
        (
            "{a} boxes of {b} {item} are shared by {c} friends. One of them had {d} before. How many now?",
            "{name} had {d} {item}. {name} and friends, {c} in all, share {a} boxes of {b}. How many now?",
        ),
    ),
    Kind(
        "week", "hard", 1, {"a": (3, 12), "b": (90, 150)}, ("a*7 b-p",),
        (
            "{name} sells {a} of {b} {item} a day. How many are left after a week?",
            "There are {b} {item}. Each day of a week {name} takes {a}. How many are left?",
        ),
    ),
)  # fmt: skip
DISTRACTED = {"easy": 0.1, "hard": 0.25}  # share of problems with a sentence whose number is not needed


def solve(way: str, numbers: dict[str, int]) -> tuple[list[str], int] | None:
    """(lines such as "3*4=12", last result) of one way; None if a result is not a positive integer."""
    known, lines = dict(numbers), []
    for name, step in zip(RESULTS, way.split(), strict=False):
        left, operator, right = known[step[0]], step[1], known.get(step[2]) or int(step[2])
        if operator == "/" and left % right:
            return None
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]
        if result <= 0:
            return None
        known[name] = result
        lines.append(f"{left}{operator}{right}={result}")
    return lines, known[name]


def share_of(kind: Kind, numbers: dict[str, int]) -> int:
    """Share of a calculation, from 0 to SHARES - 1, the same on every machine."""
    return zlib.crc32(calculation(kind, numbers).encode()) % SHARES


def share_drawn(split: str, row: int) -> int:
    """Share from which the problem of a row is drawn: 0 for test, 1 to SHARES - 1 in turn for train."""
    return 0 if split == "test" else 1 + row // BLOCK % (SHARES - 1)


def calculation(kind: Kind, numbers: dict[str, int]) -> str:
    """The calculation of a problem, independent of its wording: the kind and its numbers in sorted order."""
    return f"{kind.name} {sorted(numbers.values())}"


def problems(level: str, split: str, count: int, seed: int) -> list[dict[str, str]]:
    r"""The first `count` problems of a level and split: id, question, answer, solution, level, type.

    `answer` is an integer as text; `solution` ends in `\boxed{answer}`. No two problems have the same question. No two
    of a thousand, or in the train split of five successive thousands, have the same calculation. Equal arguments give
    equal problems on every machine, and a larger count begins with the problems of a smaller one.
    Raises ValueError for an unknown level or split, or a count below one.
    """
    if level not in DISTRACTED or split not in ("train", "test") or count < 1:
        raise ValueError(
            f"arithmetic: found level {level!r}, split {split!r}, count {count}; "
            "expected level easy or hard, split train or test, count at least 1"
        )
    rng = random.Random(f"{level} {split} {seed}")
    kinds = [kind for kind in KINDS if kind.level == level]
    shares = [kind.share for kind in kinds]
    rows: dict[str, dict[str, str]] = {}  # by question
    seen: set[str] = set()  # calculations of this thousand
    while len(rows) < count:
        share = share_drawn(split, len(rows))
        kind = rng.choices(kinds, shares)[0]
        numbers = {name: rng.randint(*bounds) for name, bounds in kind.numbers.items()}
        solved = [s for way in kind.ways if (s := solve(way, numbers))]
        if len(solved) < len(kind.ways) or share_of(kind, numbers) != share or calculation(kind, numbers) in seen:
            continue
        lines, answer = rng.choice(solved)
        question = _word(kind, numbers, rng)
        row = {
            "id": f"arithmetic/{level}/{split}/{seed}/{len(rows)}",
            "question": question,
            "answer": str(answer),
            "solution": "\n".join([*lines, rf"\boxed{{{answer}}}"]),
            "level": level,
            "type": kind.name,
        }
        if question not in rows:
            rows[question] = row
            seen.add(calculation(kind, numbers))
            if len(rows) % BLOCK == 0:
                seen.clear()
    return list(rows.values())


def _word(kind: Kind, numbers: dict[str, int], rng: random.Random) -> str:
    """The question of a problem, in one of its kind's wordings."""
    name, other, third = rng.sample(NAMES, 3)
    wording = rng.choice(kind.wordings)
    if rng.random() < DISTRACTED[kind.level]:
        wording = f"{rng.choice(DISTRACTORS)} {wording}"
    words = {"name": name, "other": other, "third": third, "item": rng.choice(ITEMS), "x": rng.randint(8, 30)}
    return wording.format(**words, **numbers)
