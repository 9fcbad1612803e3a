"""Run by test_zero3.py with the deepspeed launcher: one SGD step with learning rate 1 under ZeRO-3, whose change of the
weights is the gradient. Rank 0 saves {case: {parameter: gradient}}."""

import argparse

import torch

from east.training import deepspeed_engine
from east.training.logprobs import CompletionLogprobs
from east.training.packing import pack
from tests.zero3_cases import CASES, COEFFICIENTS, sequences


def step_gradient(case: str, rank: int, ranks: int) -> dict[str, torch.Tensor]:
    model = CASES[case]()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    module = CompletionLogprobs(model, chunk_tokens=16, with_collision=True)
    trained = [p for p in module.parameters() if p.requires_grad]
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 0}
    wrapped = deepspeed_engine.initialize(
        module,
        torch.optim.SGD(trained, lr=1.0),
        zero=zero,
        bf16=False,
        max_grad_norm=1e9,
        micro_batch=2,
        micro_steps=2,
    )
    prompts, completions = sequences()
    for micro_batch in (rank, rank + ranks):  # two per rank, of two sequences each
        part = slice(2 * micro_batch, 2 * micro_batch + 2)
        out = wrapped(pack(prompts[part], completions[part]))
        loss = (COEFFICIENTS[part] * out.sums).sum() * ranks
        wrapped.backward(loss, scale_wrt_gas=False)
    wrapped.step()
    after = deepspeed_engine.gather(wrapped, rank)
    return {name: before[name] - after["model." + name] for name in before} if rank == 0 else {}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--local_rank", type=int)
    out = parser.parse_args().out
    rank, ranks, _ = deepspeed_engine.start()
    torch.set_num_threads(1)
    gradients = {case: step_gradient(case, rank, ranks) for case in CASES}
    if rank == 0:
        torch.save(gradients, out)
    torch.distributed.destroy_process_group()  # otherwise gloo's threads may abort the process at exit


if __name__ == "__main__":
    main()
