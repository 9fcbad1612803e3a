"""Speed of sampling, compared with vLLM's own API: python benchmarks/sampling.py [--model FOLDER] ...

`east` is `draw.draw`, from the questions in memory to the complete samples folder on disk. `vllm` is `LLM.generate`
with the same engine, prompts and seeds, whose responses stay in memory. They run in turn in one process, with the
prefix cache emptied before each run, and must draw equal responses. `vllm, no seeds` is `LLM.generate` without seeds:
it shows what reproducible responses cost inside vLLM.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from east import models, tasks
from east.run import pipeline
from east.run.config import Sampling, Task
from east.sampling import draw, rendering, samples, vllm_engine
from east.toy import arithmetic, tiny_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder; default: an untrained Llama of 1M parameters")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128, help="vLLM's max_num_seqs")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.model or Path(scratch, "model")
        if arguments.model is None:
            rows = arithmetic.problems("easy", "train", 500, 0)
            tiny_model.make_tiny_model(folder, [f"{row['question']} {row['solution']}" for row in rows])
        runs = prepare(folder, Path(scratch), arguments)
        for run in runs.values():
            run()  # warm-up
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        drawn: dict[str, dict[str, Any]] = {}
        for turn in range(arguments.rounds):
            for name, run in list(runs.items())[:: (-1) ** turn]:  # in reversed order every other time, against drift
                started = time.perf_counter()
                result = run()
                seconds[name].append(time.perf_counter() - started)
                drawn[name] = result()
            assert drawn["east"] == drawn["vllm"], "east and vLLM's own API drew different responses"
        counts = {name: sum(len(t) for row in rows.values() for t in row) for name, rows in drawn.items()}
    report(folder, arguments, seconds, counts)


Result = Callable[[], dict[str, Any]]  # question id -> token ids of its samples


def prepare(folder: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, Callable[[], Result]]:
    """The three runs. Each returns a function that reads its result, so that reading is not timed."""
    task = Task(name="arithmetic", train_rows=(0, arguments.questions))
    settings = Sampling(
        engine="vllm", n=arguments.n, max_tokens=arguments.max_tokens, dtype=arguments.dtype, batch=arguments.batch
    )
    questions, _ = tasks.questions(task, "train")
    tokenizer = models.load_tokenizer(folder)
    prompts = [rendering.render(tokenizer, row["question"], task) for row in questions]
    ids = [row["id"] for row in questions]
    context = max(len(tokens) for _, tokens in prompts) + settings.max_tokens
    arguments_of_vllm = vllm_engine.vllm_arguments(folder, settings, context)
    from vllm import LLM, SamplingParams

    llm = LLM.from_engine_args(arguments_of_vllm)
    vllm_engine.start_vllm = lambda *_: llm.llm_engine  # all runs use the same engine
    ends = models.end_tokens(folder, tokenizer)
    shared: dict[str, Any] = {"n": settings.n, "max_tokens": settings.max_tokens, "stop_token_ids": ends}

    def east() -> Result:
        llm.reset_prefix_cache()
        artifact = pipeline.at("samples", Path(tempfile.mkdtemp(dir=scratch)) / "samples")
        draw.draw(dataclasses.replace(artifact, settings=settings.plan), questions, prompts, folder, settings)
        return lambda: {row["question"]: row["tokens"] for row in samples.read(artifact)}

    def generate(seeded: bool = True) -> Result:
        llm.reset_prefix_cache()
        seeds = [draw.question_seed(settings.seed, i) if seeded else None for i in ids]
        params = [SamplingParams(seed=seed, **shared) for seed in seeds]
        outputs = llm.generate([{"prompt_token_ids": p} for _, p in prompts], params, use_tqdm=False)
        return lambda: {i: [list(o.token_ids) for o in output.outputs] for i, output in zip(ids, outputs, strict=True)}

    return {"east": east, "vllm": generate, "vllm, no seeds": lambda: generate(seeded=False)}


def report(
    folder: Path, arguments: argparse.Namespace, seconds: dict[str, list[float]], counts: dict[str, int]
) -> None:
    """Print one JSON line and a table: medians of the rounds, and the range of the ratio."""
    rates = {name: [counts[name] / s for s in times] for name, times in seconds.items()}
    ratios = [east / vllm for east, vllm in zip(rates["east"], rates["vllm"], strict=True)]
    settings = {"model": str(arguments.model or "tiny"), "dtype": arguments.dtype, "batch": arguments.batch}
    settings |= {"questions": arguments.questions, "n": arguments.n, "max_tokens": arguments.max_tokens}
    figures = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    ratio = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    row = {"benchmark": "sampling", **settings, "rounds": arguments.rounds, "tokens": counts["east"]}
    print(json.dumps({**row, "tokens_per_second": figures, "east_to_vllm": {k: round(v, 3) for k, v in ratio.items()}}))
    print(f"\n{'':16}{'tokens/s (median)':>18}   all rounds")
    for name, values in rates.items():
        print(f"{name:16}{statistics.median(values):18,.0f}   {', '.join(f'{v:,.0f}' for v in values)}")
    print(f"east / vllm: {ratio['median']:.1%} (from {ratio['min']:.1%} to {ratio['max']:.1%})")


if __name__ == "__main__":
    main()
