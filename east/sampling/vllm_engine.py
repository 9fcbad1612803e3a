"""The vLLM engine. The only file that imports vllm."""

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

# vLLM runs `batch` sequences at a time; this many times as many are given to it, so that it never waits for requests
IN_FLIGHT = 4


def vllm_engine(
    model_folder: Path, settings: Sampling, end_ids: list[int], context: int, trust: bool = False
) -> Engine:
    """A vLLM engine. The samples of a question are one request and share the keys and values of its prompt.

    vLLM gives sample k of a request the seed `seed + k`. context: largest length of a sequence. Raises ValueError when
    vLLM cannot start.
    """
    llm = start_vllm(model_folder, settings, context, trust)
    import vllm
    from vllm.sampling_params import RequestOutputKind

    tokenizer = models.load_tokenizer(model_folder, trust)
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
            detokenize=bool(settings.stop),  # vLLM needs texts only to find stop texts; they are decoded again below
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        llm.add_request(request.question, {"prompt_token_ids": request.prompt}, params)

    def engine(requests: Iterable[Request]) -> Iterator[Drawn]:
        queue, running, most = iter(requests), dict[str, Request](), IN_FLIGHT * settings.batch
        while True:
            while sum(r.count for r in running.values()) < most and (request := next(queue, None)):
                add(request)
                running[request.question] = request
            if not running:
                return
            for output in llm.step():
                if output.finished:
                    request = running.pop(output.request_id)
                    samples = sorted(output.outputs, key=lambda o: o.index)
                    tokens = [list(o.token_ids) for o in samples]
                    reasons = [o.finish_reason for o in samples]
                    assert set(reasons) <= {"stop", "length"} and all(tokens), (request.question, reasons)
                    text = [response_text(tokenizer, t, ends, settings.stop) for t in tokens]
                    yield Drawn(request.question, request.first, tokens, text, reasons)

    return engine


def start_vllm(model_folder: Path, settings: Sampling, context: int, trust: bool = False) -> Any:
    """vLLM's engine; its processes end when this one does. Raises ValueError when it cannot start."""
    arguments = vllm_arguments(model_folder, settings, context, trust)
    import vllm

    try:
        llm = vllm.LLMEngine.from_engine_args(arguments)
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())[:300]
        raise ValueError(
            f"vllm cannot start with {model_folder} ({line}; its own log is above); change the section sampling, "
            "e.g. gpu_memory, max_model_len or dtype, or set sampling.engine=transformers"
        ) from None
    _end_with_this_process([child.pid for child in multiprocessing.active_children()])
    return llm


def vllm_arguments(model_folder: Path, settings: Sampling, context: int, trust: bool = False) -> Any:
    """The arguments with which vLLM is started, a `vllm.EngineArgs`."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
    import vllm
    from vllm.platforms import current_platform

    cpu = current_platform.is_cpu()
    # on a CPU, a request with a seed fails in a chunked prefill ('CPU Generator does not use offset')
    unchunked: dict[str, Any] = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, 8192)}
    return vllm.EngineArgs(
        model=str(model_folder),
        dtype=settings.dtype,
        trust_remote_code=trust,
        max_model_len=context,
        max_num_seqs=settings.batch,
        tensor_parallel_size=settings.tensor_parallel,
        gpu_memory_utilization=settings.gpu_memory,
        enable_prefix_caching=True,
        generation_config="vllm",  # without the model's own sampling defaults (top_k, ...)
        disable_log_stats=True,
        enforce_eager=cpu,
        **(unchunked if cpu else {}),
    )


def _end_with_this_process(pids: list[int | None]) -> None:
    """Kill processes when this one ends: after a kill -9 of this one, vLLM's engine process would keep running."""
    kill = f"cat; kill -9 {' '.join(map(str, pids))}"
    # the watcher reads until this process closes the pipe by ending; in its own session it does not receive Ctrl-C
    watcher = subprocess.Popen(
        ["sh", "-c", kill], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    atexit.register(watcher.kill)  # at a normal exit, vLLM ends its processes itself
