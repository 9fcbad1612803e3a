"""The benchmark that counts agreeing wrong answers and right answers with right steps."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import responses
from east.run import files
from tests.conftest import ROOT
from tests.stages import folder_of

RIGHT, LUCKY = "2*3=6\n6+1=7\n\\boxed{7}", "2*3=8\n8-1=7\n\\boxed{7}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RIGHT, True),
        (LUCKY, False),
        ("\\boxed{7}", True),
        ("9/3=3\n3-5=-2", True),
        ("9/2=4", False),
        ("9/0=0", False),
        ("1+2+3=6", False),
        ("x=6", False),
        ("2+2=4=4", False),
    ],
)
def test_a_solution_is_valid_when_every_step_is_right(text, expected):
    assert responses.valid(text) is expected


def test_shares_by_weight_are_those_by_hand():
    """Entropies 1 and 3 with shares 1 and 0.5: under h the share is (1 + 1.5) / 4 and the ESS 16 / 10."""
    found = {row["a"]: row for row in responses.by_weight(np.array([1.0, 3.0]), np.array([1.0, 0.5]))}
    assert found[0.0] == {"a": 0.0, "valid": 0.75, "effective_sample_size": 1.0}
    assert found[1.0]["valid"] == pytest.approx(2.5 / 4) and found[1.0]["effective_sample_size"] == pytest.approx(0.8)
    assert found[-1.0]["valid"] == pytest.approx((1 + 0.5 / 3) / (4 / 3))


def test_the_command_reads_a_round(tmp_path):
    """Two of the three right responses of q/0 are valid; q/1 and q/2 have no right one and are not counted. The ten
    wrong answers of q/1 are equal, those of q/2 are five pairs, and q/0 has fewer than ten."""
    texts = {"q/0": [RIGHT, LUCKY, RIGHT, "1+1=2\n\\boxed{2}"], "q/1": [RIGHT] * 10, "q/2": [RIGHT] * 10}
    clusters = {"q/0": [("7", 3), ("2", 1)], "q/1": [("9", 10)], "q/2": [(str(k), 2) for k in range(10, 15)]}
    with folder_of("samples", tmp_path / "samples", {}, {}).writing() as (scratch, summary):
        asked = [{"id": q, "question": q, "gold": "7", "meta": {}, "prompt": q, "prompt_tokens": [1]} for q in texts]
        files.write_jsonl(scratch / "questions.jsonl", asked)
        files.write_jsonl(scratch / "responses.jsonl", [
            {"question": q, "first": 0, "tokens": [[1]] * len(t), "text": t, "finish_reason": ["stop"] * len(t)}
            for q, t in texts.items()
        ])  # fmt: skip
        summary.update(n=10, questions=3)
    with folder_of("graded", tmp_path / "graded", {}, {}).writing() as (scratch, summary):
        files.write_jsonl(scratch / "questions.jsonl", [
            {"question": q, "correct": [q == "q/0" and k < 3 for k in range(len(t))], "entropy": 0.6,
             "clusters": [{"answer": a, "count": n, "correct": a == "7"} for a, n in clusters[q]]}
            for q, t in texts.items()
        ])  # fmt: skip
    line = [sys.executable, "benchmarks/responses.py", str(tmp_path)]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["questions"], found["stubborn"], found["scattered"]) == (1, 0.5, 0.5)
    assert found["by_entropy"] == [{"from": 0.5, "questions": 1, "valid": pytest.approx(2 / 3)}]
    assert {row["effective_sample_size"] for row in found["by_weight"]} == {1.0}


def test_a_folder_without_verdicts_is_a_one_line_error(tmp_path):
    line = [sys.executable, "benchmarks/responses.py", str(tmp_path)]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and "found no graded/questions.jsonl" in result.stderr.splitlines()[-1]
