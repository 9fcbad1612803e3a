"""The benchmark that asks whether right answers stand on right steps."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import valid_steps
from east import artifacts, samples, stages
from tests.conftest import ROOT

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
def test_a_solution_is_valid_when_every_step_holds(text, expected):
    assert valid_steps.valid(text) is expected


def test_shares_by_weight_are_those_by_hand():
    """Entropies 1 and 3 with shares 1 and 0.5: under h the share is (1 + 1.5) / 4 and the ESS 16 / 10."""
    found = {row["a"]: row for row in valid_steps.by_weight(np.array([1.0, 3.0]), np.array([1.0, 0.5]))}
    assert found[0.0] == {"a": 0.0, "valid": 0.75, "effective_sample_size": 1.0}
    assert found[1.0]["valid"] == pytest.approx(2.5 / 4) and found[1.0]["effective_sample_size"] == pytest.approx(0.8)
    assert found[-1.0]["valid"] == pytest.approx((1 + 0.5 / 3) / (4 / 3))


def test_the_command_reads_a_round(tmp_path):
    """Two of the three right responses of one question are valid; another has no right one and is not counted."""
    texts = {"q/0": [RIGHT, LUCKY, RIGHT, "1+1=2\n\\boxed{2}"], "q/1": [RIGHT] * 4}
    verdicts = {"q/0": [True, True, True, False], "q/1": [False] * 4}
    plan = {"n": 4}
    with artifacts.writing(tmp_path / "samples", samples.KIND, plan, {}) as (scratch, summary):
        asked = [{"id": q, "question": q, "gold": "7", "meta": {}, "prompt_tokens": [1]} for q in texts]
        artifacts.write_jsonl(scratch / "questions.jsonl", asked)
        artifacts.write_jsonl(scratch / "responses.jsonl", [
            {"question": q, "first": 0, "tokens": [[1]] * 4, "text": t, "finish_reason": ["stop"] * 4}
            for q, t in texts.items()
        ])  # fmt: skip
        summary.update(n=4, questions=2)
    with artifacts.writing(tmp_path / "graded", stages.GRADED, plan, {}) as (scratch, summary):
        rows = [{"question": q, "correct": c, "entropy": 0.6} for q, c in verdicts.items()]
        artifacts.write_jsonl(scratch / "questions.jsonl", rows)
    line = [sys.executable, "benchmarks/valid_steps.py", str(tmp_path)]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["questions"] == 1
    assert found["by_entropy"] == [{"from": 0.5, "questions": 1, "valid": pytest.approx(2 / 3)}]
    assert {row["effective_sample_size"] for row in found["by_weight"]} == {1.0}
