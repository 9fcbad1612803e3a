"""The vLLM engine. The only `import vllm`."""

import atexit
import multiprocessing
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from east import models
from east.run.config import Sampling
from east.sampling.engine_interface import Drawn, Engine, Request, response_text

# times `batch`: sequences that vLLM is given ahead, so that none of its places is ever empty
IN_FLIGHT = 4


def vllm_engine(model_folder: Path, settings: Sampling, end_ids: list[int], context: int) -> Engine:
    """vLLM; the samples of a question go out as one request and share the prompt's keys and values.

    vLLM itself gives child k of a request the seed `seed + k`. context: most positions of a sequence.
    """
    llm = start_vllm(model_folder, settings, context)
    import vllm
    from vllm.sampling_params import RequestOutputKind

    tokenizer = models.load_tokenizer(model_folder)
    ends = set(end_ids)

    def add(request: Request) -> None:
        params = vllm.SamplingParams(
            n=request.count,
            seed=request.seed + request.first if settings.temperature > 0 else None,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=min(settings.max_tokens, context - len(request.prompt)),
            stop=settings.stop,
            stop_token_ids=end_ids,
            detokenize=bool(settings.stop),  # only to find stop texts; the text is made here
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        llm.add_request(request.question, {"prompt_token_ids": request.prompt}, params)

    def engine(requests: Iterable[Request]) -> Iterator[Drawn]:
        queue, flying, ahead = iter(requests), dict[str, Request](), IN_FLIGHT * settings.batch
        while True:
            while sum(r.count for r in flying.values()) < ahead and (request := next(queue, None)):
                add(request)
                flying[request.question] = request
            if not flying:
                return
            for output in llm.step():
                if output.finished:
                    request = flying.pop(output.request_id)
                    samples = sorted(output.outputs, key=lambda o: o.index)
                    tokens = [list(o.token_ids) for o in samples]
                    reasons = [o.finish_reason for o in samples]
                    assert set(reasons) <= {"stop", "length"} and all(tokens), (request.question, reasons)
                    text = [response_text(tokenizer, t, ends, settings.stop) for t in tokens]
                    yield Drawn(request.question, request.first, tokens, text, reasons)

    return engine


def start_vllm(model_folder: Path, settings: Sampling, context: int) -> Any:
    """vLLM's engine, whose processes end with this one. Raises ValueError when it cannot start."""
    arguments = vllm_arguments(model_folder, settings, context)
    import vllm

    try:
        llm = vllm.LLMEngine.from_engine_args(arguments)
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise ValueError(
            f"vllm cannot start with {model_folder} ({line}; its own log is above); change the sampling section, "
            "e.g. gpu_memory, max_model_len or dtype, or set sampling.engine=transformers"
        ) from None
    _end_with_us([child.pid for child in multiprocessing.active_children()])
    return llm


def vllm_arguments(model_folder: Path, settings: Sampling, context: int) -> Any:
    """What vLLM is started with (`vllm.EngineArgs`)."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
    import vllm
    from vllm.platforms import current_platform

    cpu = current_platform.is_cpu()
    # on a CPU a seeded request dies in a chunked prefill ('CPU Generator does not use offset')
    whole: dict[str, Any] = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, 8192)}
    return vllm.EngineArgs(
        model=str(model_folder),
        dtype=settings.dtype,
        max_model_len=context,
        max_num_seqs=settings.batch,
        tensor_parallel_size=settings.tensor_parallel,
        gpu_memory_utilization=settings.gpu_memory,
        enable_prefix_caching=True,
        generation_config="vllm",  # the folder's own defaults (top_k, ...) must not mix with ours
        disable_log_stats=True,
        enforce_eager=cpu,
        **(whole if cpu else {}),
    )


def _end_with_us(pids: list[int | None]) -> None:
    """Kill processes when this one dies: after a kill -9 vLLM's engine process would live on."""
    kill = f"cat; kill -9 {' '.join(map(str, pids))}"
    # the watcher reads until our end of the pipe is gone; a session of its own keeps Ctrl-C from it
    watcher = subprocess.Popen(
        ["sh", "-c", kill], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    atexit.register(watcher.kill)  # an orderly end leaves them to vLLM
