"""A server that starts training runs by fork. It reads requests from stdin and writes answers to stdout, as JSON lines.

Importing torch, DeepSpeed and transformers takes seconds and is done once, in this process. It creates no tensors,
threads or process groups, so that a rank forked from it is in the same state as one that a launcher starts.

{"run": settings, "ranks": 2, "log": path}  starts a run; the answer is a list of process ids, by rank
    "program": "reference"                  optional: a program other than train
    "file_limit": bytes                     optional: rank 0 cannot write longer files, as if its disk were full
{"poll": [process ids]}                     the answer has for each its exit status (-9: killed), or null while it runs
"""

import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from typing import Any

import train
from east.run import config
from east.training import reference

for name in (  # modules that are otherwise imported at start-up; ZeRO's Muon imports torch.compile
    "peft", "transformers.models.llama.modeling_llama", "deepspeed.runtime.zero.muon.muon_optimizer",
):  # fmt: skip
    importlib.import_module(name)

PROGRAMS = {"train": train.train, "reference": reference.run}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rank_process(request: dict[str, Any], rank: int, port: int) -> None:
    """Run the program as one rank, and exit with the status of the program."""
    sys.stdout.flush()
    log = os.open(f"{request['log']}.{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": request["ranks"]}
    group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in group.items()})
    if rank == 0 and "file_limit" in request:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_limit"], resource.RLIM_INFINITY))
    status = 2
    try:
        PROGRAMS[request.get("program", "train")](config.parse(request["run"]))
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def start(request: dict[str, Any]) -> list[int]:
    port, processes = free_port(), []
    for rank in range(request["ranks"]):
        process = os.fork()
        if process == 0:
            rank_process(request, rank, port)
        processes.append(process)
    return processes


def poll(process: int, ended: dict[int, int]) -> int | None:
    if process not in ended:
        waited, status = os.waitpid(process, os.WNOHANG)
        if waited:
            ended[process] = os.waitstatus_to_exitcode(status)
    return ended.get(process)


def main() -> None:
    started: list[int] = []
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer: list[Any] = [poll(p, ended) for p in request["poll"]]
        else:
            answer = start(request)
            started += answer
        print(json.dumps(answer), flush=True)
    for process in started:
        if poll(process, ended) is None:
            os.kill(process, signal.SIGKILL)
    os._exit(0)  # without the clean-up of the libraries, which takes seconds


if __name__ == "__main__":
    main()
