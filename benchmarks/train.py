"""Training speed, compared with TRL: the same model, examples, order and losses.

    python benchmarks/train.py --loss dpo --against trl [--model cpu-512] [--alternations 5] [--compile]

`east` is `python train.py`; `trl` is TRL's trainer with precomputed reference log-probabilities, and with gradient
checkpointing if east has it. Each run is a separate process with `--threads` threads; its first step is not counted.
The two run alternately, and the losses of every step must agree.

Prints a table and one JSON line with: real tokens per second (a prompt counts once per response, padding does not
count); the ratio, with its range over the alternations; peak memory; MFU, the share of the machine's rate of matrix
multiplication that the products of the real tokens account for; and the seconds from the command to the end of the
first optimizer step. KTO's mismatched pairs, one more forward pass for both, count neither as tokens nor as products.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import train_data  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "cpu-512": {
        "hidden_size": 512,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
    },
    "llama-1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
    },
    "llama-8b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
    },
}
VOCABULARY = {"tiny": 1000, "cpu-512": 32_000, "llama-1b": 128_256, "llama-8b": 128_256}
REPORTED = ("threads", "dtype", "micro_batch", "accumulation", "micro_tokens", "lengths", "gradient_checkpointing",
            "compile")  # fmt: skip
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}  # relative, between the two losses of a step


def model_config(name: str) -> transformers.LlamaConfig:
    """The config of a model of this shape; embeddings are tied except in the 8B model."""
    shape = {"num_key_value_heads": SHAPES[name]["num_attention_heads"], **SHAPES[name]}
    return transformers.LlamaConfig(
        vocab_size=VOCABULARY[name],
        tie_word_embeddings=name != "llama-8b",
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        **shape,
    )


def step_flops(config: Any, rows: list[list[tuple[int, int]]], lora: bool) -> list[float]:
    """Floating point operations of the matrix products of each step, for real tokens.

    rows: per step (prompt length, completion length) of every sequence. There are 2 per weight and token in forward and
    4 in backward (2 where the weight is frozen); the head runs on completions only; attention takes 4 T^2 / 2 per layer
    and hidden unit in forward, twice that in backward.
    """
    d, kv = config.hidden_size, config.num_key_value_heads * config.head_dim
    layer = 2 * d * d + 2 * d * kv + 3 * d * config.intermediate_size
    passes = 4 if lora else 6
    flops = []
    for step in rows:
        products = sum((p + c) * layer * config.num_hidden_layers + c * d * config.vocab_size for p, c in step)
        attention = sum(6 * (p + c) ** 2 * d * config.num_hidden_layers for p, c in step)
        flops.append(float(passes * products + attention))
    return flops


def matmul_rate(threads: int, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product on this machine, the best of six."""
    gpu = torch.cuda.is_available()
    size = 8192 if gpu else 2048
    torch.set_num_threads(threads)
    a = torch.randn(size, size, dtype=dtype, device="cuda" if gpu else "cpu")
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        a @ a
        if gpu:
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def run(side: str, workspace: Path, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train in one process. Returns seconds and losses of each step; memory: peak bytes, of the GPU if there is one;
    first_step: seconds from the command to the end of the first step."""
    if side == "east":
        command = ["train.py", "--config", str(workspace / "run.yaml"), f"name={name}"]
        if arguments.compile:
            command.append("train.compile=true")
    else:
        command = [str(ROOT / "benchmarks" / "train_trl.py"), str(workspace), name]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "TOKENIZERS_PARALLELISM": "false"}
    log, began = workspace / f"{name}.log", time.time()
    with log.open("w") as sink:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{side} failed; its last output:\n{log.read_text()[-3000:]}")
    rows = train_data.read_metrics(side, workspace, name)
    memory = max(r["gpu_memory"] for r in rows) if torch.cuda.is_available() else usage.ru_maxrss * 1024
    return {
        "seconds": [r["seconds"] for r in rows],
        "losses": [r["loss"] for r in rows],
        "memory": memory,
        "first_step": rows[0]["ended"] - began,
    }


def report(arguments: argparse.Namespace, runs: dict[str, list[dict]], lengths: list, rate: float) -> dict[str, Any]:
    """Print and return medians over the alternations. The first step of each run is not counted: it is the warm-up."""
    config = model_config(arguments.model)
    tokens = sum(p + c for step in lengths[1:] for p, c in step)
    flops = sum(step_flops(config, lengths[1:], arguments.model == "llama-8b"))
    speeds = {side: [tokens / sum(r["seconds"][1:]) for r in of_side] for side, of_side in runs.items()}
    result: dict[str, Any] = {
        "loss": arguments.loss,
        "model": arguments.model,
        "machine": train_data.machine(),
        **{name: getattr(arguments, name) for name in REPORTED},
        "real_tokens_per_step": tokens / (len(lengths) - 1),
        "matmul_tflops": rate / 1e12,
        "losses": runs["east"][0]["losses"],
    }
    for side, of_side in runs.items():
        speed = statistics.median(speeds[side])
        result[side] = {
            "tokens_per_second": speed,
            "all": speeds[side],
            "peak_gib": max(r["memory"] for r in of_side) / 2**30,
            "mfu": speed / tokens * flops / rate,
            "first_step_seconds": statistics.median(r["first_step"] for r in of_side),
        }
    if len(runs) == 2:
        ratios = [east / trl for east, trl in zip(speeds["east"], speeds["trl"], strict=True)]
        result["ratio"] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    print(f"{'':8}{'tokens/s':>10}{'peak GiB':>10}{'MFU':>8}{'first step':>12}")
    for side in runs:
        r = result[side]
        print(
            f"{side:8}{r['tokens_per_second']:10.1f}{r['peak_gib']:10.2f}{r['mfu']:8.1%}"
            f"{r['first_step_seconds']:10.1f} s"
        )
    if "ratio" in result:
        print("ratio {median:.2f} ({least:.2f} to {most:.2f})".format(**result["ratio"]))
    print(json.dumps(result))
    return result


def check_losses(runs: dict[str, list[dict]], dtype: str) -> None:
    """Check that all runs have the same losses. Raises SystemExit with the losses of a run that differs."""
    expected = runs["east"][0]["losses"]
    for side, of_side in runs.items():
        for r in of_side:
            if not np.allclose(r["losses"], expected, rtol=TOLERANCE[dtype], atol=1e-5):
                raise SystemExit(f"losses differ: found {r['losses']} with {side}, expected {expected} as with east")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=["sft", "dpo", "kto"], default="dpo")
    parser.add_argument("--against", choices=["trl", "nothing"], default="trl")
    parser.add_argument("--model", choices=list(SHAPES), default="cpu-512")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps that are timed in each run")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--micro-tokens", type=int, help="east's micro-batches by tokens; TRL's stay by examples")
    parser.add_argument(
        "--lengths", type=int, nargs=2, default=[100, 200], metavar=("PROMPT", "RESPONSE"), help="means, in tokens"
    )
    parser.add_argument("--gradient-checkpointing", action="store_true", help="recompute activations, on both sides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile of east's decoder layers")
    arguments = parser.parse_args()
    if arguments.loss == "kto" and arguments.micro_tokens:
        parser.error("--loss kto computes z0 per micro-batch, as TRL does: leave out --micro-tokens")
    sides = ["east"] + ([] if arguments.against == "nothing" else [arguments.against])
    runs: dict[str, list[dict]] = {side: [] for side in sides}
    rate = 0.0
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        lengths = train_data.prepare(workspace, model_config(arguments.model), arguments)
        for i in range(arguments.alternations):
            for side in sides if i % 2 == 0 else sides[::-1]:  # ABBA, so that a slowing machine affects both equally
                rate = max(rate, matmul_rate(arguments.threads, getattr(torch, arguments.dtype)))
                runs[side].append(run(side, workspace, f"{side}-{i}", arguments))
                print(f"{side} {i}: seconds {[round(s, 2) for s in runs[side][-1]['seconds']]}", flush=True)
    check_losses(runs, arguments.dtype)
    report(arguments, runs, lengths, rate)


if __name__ == "__main__":
    main()
