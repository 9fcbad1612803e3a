"""DeepSpeed: start-up, one engine for ZeRO 0 to 3, reductions, checkpoints. The only file that imports deepspeed.

Batch size, precision, clipping and accumulation are set in the run file; a DeepSpeed file holds ZeRO keys only.
"""

import atexit
import contextlib
import ctypes
import datetime
import io
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_LOG_LEVEL", "warning")
logging.getLogger("DeepSpeed").setLevel(logging.WARNING)

import deepspeed  # noqa: E402  (its loggers read the environment when it is imported)
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from east.run import files  # noqa: E402

LATEST = "latest"
TIMEOUT = datetime.timedelta(hours=2)  # of collectives: the other ranks wait while rank 0 merges and writes an 8B model


def start() -> tuple[int, int, torch.device]:
    """Join the process group, or create one of a single process without a launcher; returns (rank, ranks, device)."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        alone = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in alone.items()})
    gpu = torch.cuda.is_available()
    # DeepSpeed would compile this operator at start-up, for reductions on CPUs, which gloo can do as well. A process
    # that is killed while it compiles leaves a lock file behind, and every later start would wait for it for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed calls deprecated functions of PyTorch several times per micro-batch
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    with contextlib.redirect_stdout(io.StringIO()):  # DeepSpeed prints the accelerator that it has found
        deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", timeout=TIMEOUT, verbose=False)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    else:
        atexit.register(_leave)  # gloo's threads, still there when the interpreter ends, sometimes abort the process
    return dist.get_rank(), dist.get_world_size(), device


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def initialize(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    zero: dict[str, Any],
    bf16: bool,
    max_grad_norm: float,
    micro_batch: int,
    micro_steps: int,
) -> Any:
    """A DeepSpeed engine whose accumulation boundary is set by the caller: `engine.backward` adds to the gradient,
    `engine.step` reduces it over ranks, clips it and updates the parameters.

    DeepSpeed averages gradients over ranks, and sums them over micro-batches without a division. For a sum over ranks,
    call `engine.backward(loss * ranks, scale_wrt_gas=False)`. Gradients are accumulated in fp32, except with bf16 and
    ZeRO 0, where DeepSpeed offers no fp32 accumulation and accumulates in bf16.

    zero: DeepSpeed's `zero_optimization` section. micro_batch: examples per micro-batch. micro_steps: micro-batches
    per rank and optimizer step.
    """
    if not torch.cuda.is_available():
        _trim_before_larger_batches(module)
    ranks = dist.get_world_size()
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": micro_steps,
        "train_batch_size": micro_batch * micro_steps * ranks,
        "managed_gradient_accumulation": False,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": bf16},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if bf16 and zero.get("stage", 0) > 0:
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings, dist_init_required=False)
    if not bf16 and zero.get("stage", 0) == 0:
        # In this mode DeepSpeed clips the gradient but does not keep its norm, which is logged
        def clip() -> None:
            engine._global_grad_norm = nn.utils.clip_grad_norm_(engine.module.parameters(), max_grad_norm)

        engine.clip_fp32_gradients = clip
    # DeepSpeed copies its recovery script on rank 0 alone: an error there (a full disk) would leave the others waiting
    engine._copy_recovery_script = lambda _: None
    return engine


def _trim_before_larger_batches(module: nn.Module) -> None:
    """On the CPU, return free memory to the system before each micro-batch that is larger than all before it.

    The memory that smaller micro-batches have freed is too fragmented for a larger one, and would stay resident.
    """
    largest = 0

    def trim(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal largest
        tokens = inputs[0].input_ids.numel()
        if torch.is_grad_enabled() and tokens > largest:
            ctypes.CDLL(None).malloc_trim(0)
            largest = tokens

    module.register_forward_pre_hook(trim)


def reduce_sum(values: Tensor) -> Tensor:
    """Element-wise sums over ranks, in float64."""
    total = values.double()
    dist.all_reduce(total)
    return total


def reduce_max(values: Tensor) -> Tensor:
    """Element-wise maxima over ranks, in float64."""
    maxima = values.double()
    dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return maxima


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A barrier: if the block raises on one rank, it raises on all. For work of one rank, such as writing a file.

    The block must not call collectives. A rank whose block failed raises its own error; the others raise ValueError
    with the error of the first rank that failed.
    """
    own_error: Exception | None = None
    try:
        yield
    except Exception as error:  # sent to the other ranks first, which would wait for this one, and raised below
        own_error = error
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, None if own_error is None else str(own_error) or type(own_error).__name__)
    if own_error is not None:
        raise own_error
    failed = [(rank, message) for rank, message in enumerate(messages) if message is not None]
    if failed:
        raise ValueError("rank {}: {}".format(*failed[0]))


def gather(engine: Any, rank: int) -> dict[str, Tensor]:
    """Every parameter of the engine's module by name, unsharded, on the CPU of rank 0 ({} on the other ranks).

    ZeRO-3 shards are gathered one parameter at a time; a tied parameter is listed under each of its names.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            if rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True)
    return state


def save(engine: Any, folder: Path, step: int, rank: int) -> None:
    """Write the checkpoint from which training resumes at optimizer step `step`: folder/step_N, named by `latest`.

    `latest` changes when the checkpoint is complete, and older ones are removed after that: a process may be killed at
    any moment, and `latest` names a complete checkpoint. Frozen parameters (the base model under LoRA) are not saved,
    because they equal the starting model's.
    Raises ValueError on every rank when one of them cannot write (a full disk); the older checkpoint is then unchanged.
    """
    tag = f"step_{step}"
    errors: list[BaseException] = []
    named = engine.module.named_parameters(remove_duplicate=False)  # DeepSpeed saves a tied one under its second name
    frozen = {name for name, parameter in named if not parameter.requires_grad}

    def write(state_dict: dict[str, Any], path: str) -> None:  # does not raise: DeepSpeed has barriers after this call
        if "module" in state_dict:
            state_dict["module"] = {n: v for n, v in state_dict["module"].items() if n not in frozen}
        try:
            with open(path, "wb") as file:
                torch.save(state_dict, file)
                files.flush(file)
        except (OSError, RuntimeError) as error:  # PyTorch wraps the OSError of a full disk in an error of its own
            errors.append(error.__context__ if isinstance(error.__context__, OSError) else error)

    with together(), files.disk_errors(folder):
        if rank == 0:
            shutil.rmtree(folder / tag, ignore_errors=True)  # an incomplete one of the same name, left by a kill
            (folder / tag).mkdir(parents=True)
    engine.checkpoint_engine.save = write
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine.save_checkpoint(
            str(folder), tag=tag, client_state={"step": step}, save_latest=False, exclude_frozen_parameters=True
        )
    with together(), files.disk_errors(folder / tag):
        if errors:
            shutil.rmtree(folder / tag, ignore_errors=True)  # frees the disk
            raise errors[0]
    with together():
        if rank == 0:
            files.write_text(folder / LATEST, tag)
            for old in folder.glob("step_*"):
                if old.name != tag:
                    shutil.rmtree(old, ignore_errors=True)


def restore(engine: Any, folder: Path) -> int:
    """Load the newest complete checkpoint; returns the next optimizer step, 0 when there is no checkpoint.

    Raises ValueError when the checkpoint was written by another number of ranks (ZeRO shards) or cannot be read.
    """
    if not (folder / LATEST).exists():
        return 0
    tag = (folder / LATEST).read_text(errors="replace")
    if not (tag.startswith("step_") and (folder / tag).is_dir()):
        raise ValueError(
            f"{folder / LATEST}: found {tag[:40]!r}, expected the name of a checkpoint in the same folder; "
            f"delete {folder} to train from the start"
        )
    all_trained = all(parameter.requires_grad for parameter in engine.module.parameters())  # frozen ones are not saved
    try:
        path, state = engine.load_checkpoint(str(folder), tag=tag, load_module_strict=all_trained)
    except Exception as error:  # DeepSpeed raises many types: another number of ranks or ZeRO stage, damaged files
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder / tag}: cannot resume ({line}); use the ranks and ZeRO stage that wrote it, or delete {folder} "
            "to train from the start"
        ) from None
    if path is None:
        raise ValueError(
            f"{folder / tag}: found no checkpoint for {dist.get_world_size()} ranks; use the ranks that wrote it, or "
            f"delete {folder} to train from the start"
        )
    return int(state["step"])
