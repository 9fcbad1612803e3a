"""Labelled cases, a table computed by another grader, and different spellings of real gold answers."""

import gzip
import json
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from east.commands.grade import grade_cases
from east.grading import Grading, QuestionToGrade, grade, run_cases
from east.grading.grader import requests_of
from east.grading.matching import match
from east.grading.mathematics.reading import read
from east.grading.value_cache import ValueCache

DATA = Path(__file__).parents[2] / "shared" / "data"
OWN_CASES = Path(__file__).parent / "grading_cases.jsonl"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the data folder {DATA} is not here")


def outcomes(cases: Path, tmp_path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    run_cases(cases, tmp_path / "out.jsonl", Grading())
    labelled = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
    verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [case["id"] for case in labelled] == [row["id"] for row in verdicts]
    assert all(set(row) == {"id", "verdict", "seconds", "reason"} for row in verdicts)
    return list(zip(labelled, verdicts, strict=True))


def check_cases(cases: Path, tmp_path: Path, most_wrong: float) -> None:
    pairs = outcomes(cases, tmp_path)
    clear = [(case, row) for case, row in pairs if case["confidence"] == "clear"]
    wrong = [case["id"] for case, row in clear if row["verdict"] != case["expect"]]
    false_equal = [case["id"] for case, row in clear if row["verdict"] and not case["expect"]]
    assert false_equal == []
    assert len(wrong) <= most_wrong * len(clear), wrong
    assert max(row["seconds"] for _, row in pairs) < 2 * load()


def load() -> float:
    """Runnable processes per core, at least 1.

    A case may take 2 s on a core of its own; on a loaded machine the same work takes longer by this factor.
    """
    start, worked = time.perf_counter(), time.process_time()
    sum(range(3_000_000))
    waited = (time.perf_counter() - start) / (time.process_time() - worked)
    return max(1.0, waited, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_cases_of_this_project(tmp_path: Path) -> None:
    assert sum(1 for _ in OWN_CASES.open(encoding="utf-8")) >= 700
    check_cases(OWN_CASES, tmp_path, 0.0)


@needs_data
def test_shared_cases(tmp_path: Path) -> None:
    check_cases(DATA / "grading_cases.jsonl", tmp_path, 0.01)
    assert not Path("/tmp/east_grader_pwned").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"cases.jsonl:2 is not JSON"),
        ('{"id": 1, "gold": "3"}', "cases.jsonl:2 has no form, prediction"),
        ('{"id": 1, "gold": "3", "prediction": "3", "form": "essay"}', "cases.jsonl:2 has form 'essay'"),
        ("3", "cases.jsonl:2 is not an object"),
    ],
)
def test_a_broken_case_is_named(line: str, message: str, tmp_path: Path) -> None:
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"id": 0, "gold": "3", "prediction": "3", "form": "answer"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        run_cases(cases, tmp_path / "out.jsonl", Grading())


def test_cases_under_other_conventions_are_counted_by_confidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, out = tmp_path / "cases.jsonl", tmp_path / "out.jsonl"
    rows = [("0.25", r"25\%", True, "convention"), ("3", "3.0", True, "clear"), ("4", "5", True, "clear")]
    cases.write_text(
        "".join(
            json.dumps(
                {"id": gold, "gold": gold, "prediction": text, "form": "answer", "expect": expect,
                 "confidence": confidence, "kind": "percent" if "%" in text else "number"}
            ) + "\n"
            for gold, text, expect, confidence in rows
        )
    )  # fmt: skip
    grade_cases(cases, out, [])
    assert capsys.readouterr().out.splitlines() == [
        "cases: 3, out of bounds: 0",
        "clear: 2 cases, 1 right, 0 false equal, 1 false different",
        "convention: 1 cases, 1 right, 0 false equal, 0 false different",
        "wrong by kind: number 1",
    ]
    grade_cases(cases, out, ["grading.percent=sign"])
    assert "convention: 1 cases, 0 right, 0 false equal, 1 false different" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cases", "out", "override", "message"),
    [
        ("none.jsonl", "out.jsonl", [], "none.jsonl: No such file or directory; give --cases"),
        ("cases.jsonl", "none/out.jsonl", [], "none/out.jsonl: No such file or directory; give --cases"),
        ("latin.jsonl", "out.jsonl", [], "latin.jsonl: not UTF-8 text .*save it as UTF-8"),
        ("cases.jsonl", "out.jsonl", ["train.lr=1"], "found 'train.lr=1', expected grading.key=value"),
        ("cases.jsonl", "out.jsonl", ["grading.percents=sign"], "unknown key `percents`"),
    ],
)
def test_files_and_settings_of_cases_are_refused_in_one_line(
    cases: str, out: str, override: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "cases.jsonl").write_text('{"id": 0, "gold": "3", "prediction": "3", "form": "answer"}\n')
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(ValueError, match=message) as refused:
        grade_cases(tmp_path / cases, tmp_path / out, override)
    assert "\n" not in str(refused.value)


def real_questions() -> list[QuestionToGrade]:
    with gzip.open(DATA / "qwen25math_cot_100x8.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    sample, reasons = list(range(8)), ["stop"] * 8
    return [
        {"question": str(row["idx"]), "gold": row["answer"], "sample": sample, "text": row["code"],
         "finish_reason": reasons}
        for row in rows
    ]  # fmt: skip


@needs_data
def test_qwen_strings_reproduce_the_reference_table() -> None:
    """The string clusters of 100 questions with their verdicts, entropies, R and A, as another grader computed them."""
    lines = (DATA / "math_cot_100_entropy_reference.jsonl").read_text(encoding="utf-8").splitlines()
    table = [json.loads(line) for line in lines]
    rows = list(grade(real_questions(), Grading(clusters="qwen-string")))
    assert len(rows) == len(table) == 100
    for expected, row in zip(table, rows, strict=True):
        clusters = sorted([c["answer"], c["count"], c["correct"]] for c in row["clusters"])
        assert clusters == sorted(expected["string"]["clusters"])
        assert row["entropy"] == pytest.approx(expected["string"]["entropy_nats"], abs=1e-6)
        assert row["rejection"] == pytest.approx(expected["string"]["dominant_wrong_fraction"], abs=1e-9)
        assert row["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-9)


@needs_data
def test_the_four_values_of_question_72_are_in_four_clusters() -> None:
    row = list(grade(real_questions(), Grading()))[72]
    cluster_of = dict(zip(row["answer"], row["cluster"], strict=True))
    assert len({cluster_of[a] for a in ("9999", "9998.571428571429", "9999.857142857143", "10000")}) == 4
    assert row["accuracy"] == 1 / 8, "10{,}000 is the gold answer's spelling of 10000"


def real_golds(every: int) -> list[str]:
    golds: set[str] = set()
    for name in ("math_train", "math_test"):
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            golds.update(json.loads(line)["answer"] for line in lines)
    return sorted(golds - {""})[::every]


def respellings(gold: str) -> Iterator[str]:
    yield f"${gold}$"
    yield f"\\[ {gold}. \\]"
    yield f"\\boxed{{{gold}}}"
    yield f"**{gold}**"
    yield gold.replace("\\frac", "\\dfrac")
    yield gold.replace("-", "\u2212").replace("\\pi", "π")
    yield re.sub(r"\^(\w)", r"^{\1}", gold)
    yield re.sub(r"(\d)(\\sqrt|\\pi)", r"\1\\cdot\2", gold)


def alterations(gold: str, random_: random.Random) -> Iterator[str]:
    """Other answers: with another digit, another sign, one root less, one pi less."""
    if digits := [digit.start() for digit in re.finditer(r"(?<!\^)(?<!\^\{)\d", gold)]:
        place = random_.choice(digits)
        other = str((int(gold[place]) + random_.randint(1, 8)) % 10)
        yield gold[:place] + other + gold[place + 1 :]
    if "+" in gold:
        yield gold.replace("+", "-", 1)
    if gold.startswith("-"):
        yield gold[1:]
    for part in ("\\sqrt", "\\pi"):
        if part in gold:
            yield gold.replace(part, "", 1)


@needs_data
def test_real_golds_match_their_respellings_and_no_alteration() -> None:
    """Every seventh gold answer of MATH, without those that contain an approximation ("2/3 ~ 0.67")."""
    random_ = random.Random(0)
    golds = [gold for gold in real_golds(every=7) if "approx" not in gold]
    pairs = [(gold, text, True) for gold in golds for text in respellings(gold)]
    pairs += [(gold, text, False) for gold in golds for text in alterations(gold, random_)]
    values = ValueCache(workers=1, timeout_s=10)
    try:
        values.compute(requests_of(text) for pair in pairs for text in pair[:2])
        wrong = [
            pair
            for pair in pairs
            if (match(read(pair[0]), read(pair[1]), values.lookup, Grading()) is not None) != pair[2]
        ]
    finally:
        values.close()
    assert len(pairs) > 5_000
    assert wrong == []
