"""Completion log-probabilities under DeepSpeed ZeRO-3 on two processes have the same gradient as on one process without
DeepSpeed.

The weight of the LM head is used outside the forward of its own module, in chunks, and again in backward. ZeRO-3 must
gather it for both, whether it is tied or not, trained or frozen.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from east.training.logprobs import CompletionLogprobs
from east.training.packing import pack
from tests.conftest import free_port
from tests.yardstick import relative_distance
from tests.zero3_cases import CASES, COEFFICIENTS, sequences

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def zero3(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    out = tmp_path_factory.mktemp("zero3") / "gradients.pt"
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2"]
    launcher += ["--master_port", str(free_port())]
    result = subprocess.run(
        [*launcher, str(HERE / "zero3_gradients.py"), "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return torch.load(out)


@pytest.mark.parametrize("case", list(CASES))
def test_gradient_equals_one_process(zero3, case):
    model = CASES[case]()
    prompts, completions = sequences()
    (COEFFICIENTS * CompletionLogprobs(model)(pack(prompts, completions)).sums).sum().backward()
    expected = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    assert relative_distance(zero3[case], expected) < 1e-5
