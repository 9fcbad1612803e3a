"""DeepSpeed: start-up, one engine for ZeRO 0 to 3, reductions, checkpoints. The only `import deepspeed`.

The run file owns batch size, precision, clipping and accumulation; a DeepSpeed file holds ZeRO keys only.
"""

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

import deepspeed  # noqa: E402  (its loggers read the environment on import)
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from east.run import files  # noqa: E402

LATEST = "latest"
TIMEOUT = datetime.timedelta(hours=2)  # rank 0 merges and writes an 8B model while the others wait


def start() -> tuple[int, int, torch.device]:
    """Join the process group, alone when no launcher set one up; returns (rank, ranks, device)."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        alone = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in alone.items()})
    gpu = torch.cuda.is_available()
    # Compiled at start-up for reductions on CPUs, which gloo does too; a process killed meanwhile leaves a lock
    # behind for which every later start would wait, for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # DeepSpeed calls PyTorch by names that it will drop, several times a micro-batch
    warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports what it has found
        deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", timeout=TIMEOUT, verbose=False)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    return dist.get_rank(), dist.get_world_size(), device


def stop() -> None:
    """Leave the process group: its threads, still there when the interpreter ends, sometimes abort the process."""
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
    """A DeepSpeed engine whose accumulation boundary is ours: `backward` adds up, `step` reduces and updates.

    Gradients are averaged over ranks by DeepSpeed and summed over micro-batches (no division): losses passed to
    `engine.backward(loss, scale_wrt_gas=False)` are scaled by the number of ranks. Accumulated in fp32; bf16
    with ZeRO 0 has no fp32 accumulation in DeepSpeed and accumulates in bf16.
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
        # DeepSpeed clips here without keeping the norm, which the log wants
        def clip() -> None:
            engine._global_grad_norm = nn.utils.clip_grad_norm_(engine.module.parameters(), max_grad_norm)

        engine.clip_fp32_gradients = clip
    engine._copy_recovery_script = lambda _: None  # on rank 0 alone: a full disk would leave the others waiting
    return engine


def _trim_before_larger_batches(module: nn.Module) -> None:
    """On the CPU, give free memory back to the system before each micro-batch that is larger than all before it.

    What smaller ones left is in pieces that a larger one cannot use, and would stay resident.
    """
    largest = 0

    def trim(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal largest
        tokens = len(inputs[0].input_ids)
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
    """Element-wise largest over ranks, in float64."""
    most = values.double()
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return most


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A block that may fail on one rank (rank 0 writes a file): every rank leaves it when all have, or all raise.

    The block makes no collectives. Raises the rank's own error, or ValueError with the first other rank's.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:  # told to the others, who would wait for this rank, and raised again below
        own = error
    told: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(told, None if own is None else str(own) or type(own).__name__)
    if own is not None:
        raise own
    failed = [(rank, text) for rank, text in enumerate(told) if text is not None]
    if failed:
        raise ValueError("rank {}: {}".format(*failed[0]))


def gather(engine: Any, rank: int) -> dict[str, Tensor]:
    """Every parameter of the engine's module, whole, on the CPU of rank 0 ({} elsewhere).

    ZeRO-3 shards are gathered one parameter at a time; tied parameters are listed under each of their names.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            if rank == 0:
                state[name] = parameter.detach().to("cpu", copy=True)
    return state


def save(engine: Any, folder: Path, step: int, rank: int) -> None:
    """Write a checkpoint that stands before optimizer step `step`; it counts once `latest` names it.

    Older checkpoints are removed after that. Killed at any moment, `latest` names a whole one. What is frozen (the
    base under LoRA) is not in it: it stands in the starting model.
    Raises ValueError on every rank when one cannot write (a full disk): the older checkpoint is as before.
    """
    tag = f"step_{step}"
    failed: list[BaseException] = []
    named = engine.module.named_parameters(remove_duplicate=False)  # DeepSpeed keeps a tied one under its second name
    frozen = {name for name, parameter in named if not parameter.requires_grad}

    def write(state_dict: dict[str, Any], path: str) -> None:  # raises nothing: DeepSpeed meets barriers after it
        if "module" in state_dict:
            state_dict["module"] = {n: v for n, v in state_dict["module"].items() if n not in frozen}
        try:
            with open(path, "wb") as file:
                torch.save(state_dict, file)
                files.flush(file)
        except (OSError, RuntimeError) as error:  # PyTorch's own error hides that of the disk
            failed.append(error.__context__ if isinstance(error.__context__, OSError) else error)

    with together(), files.disk_errors(folder):
        if rank == 0:
            shutil.rmtree(folder / tag, ignore_errors=True)  # a torn one of the same name
            (folder / tag).mkdir(parents=True)
    engine.checkpoint_engine.save = write
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine.save_checkpoint(
            str(folder), tag=tag, client_state={"step": step}, save_latest=False, exclude_frozen_parameters=True
        )
    with together(), files.disk_errors(folder / tag):
        if failed:
            shutil.rmtree(folder / tag, ignore_errors=True)  # gives the disk back
            raise failed[0]
    with together():
        if rank == 0:
            files.write_text(folder / LATEST, tag)
            for old in folder.glob("step_*"):
                if old.name != tag:
                    shutil.rmtree(old, ignore_errors=True)


def restore(engine: Any, folder: Path) -> int:
    """Load the newest whole checkpoint; returns the next optimizer step, 0 when there is none.

    Raises ValueError when it was written by another number of ranks (ZeRO shards) or cannot be read.
    """
    if not (folder / LATEST).exists():
        return 0
    tag = (folder / LATEST).read_text(errors="replace")
    if not (tag.startswith("step_") and (folder / tag).is_dir()):
        raise ValueError(
            f"{folder / LATEST}: found {tag[:40]!r}, expected the name of a checkpoint beside it; "
            f"delete {folder} to train from the start"
        )
    whole = all(parameter.requires_grad for parameter in engine.module.parameters())
    try:
        path, state = engine.load_checkpoint(str(folder), tag=tag, load_module_strict=whole)
    except Exception as error:  # DeepSpeed raises many types: wrong rank count, torn files, other ZeRO stage
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder / tag}: cannot resume ({line}); use the ranks and ZeRO stage that wrote it, or delete {folder} "
            "to train from the start"
        ) from None
    if path is None:
        raise ValueError(f"{folder / tag}: no checkpoint for {dist.get_world_size()} ranks; delete {folder} to restart")
    return int(state["step"])
