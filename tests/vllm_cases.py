"""Run by test_engines.py in a separate process: draws with one vLLM engine and writes a JSON file per case.

At the end it draws without end, until the parent process kills it.
"""

import itertools
import json
import sys
from pathlib import Path

import psutil

from east.sampling import vllm_engine
from tests import drawing
from tests.test_engines import CONTEXT, STOP


def main(folder: Path, out: Path) -> None:
    ends = drawing.ends(folder)
    llm = vllm_engine.start_vllm(folder, drawing.settings(), CONTEXT)
    (out / "pids").write_text(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]))
    vllm_engine.start_vllm = lambda *_: llm  # one engine process for several settings

    def draw(name, requests, **values):
        engine = vllm_engine.vllm_engine(folder, drawing.settings(**values), ends, CONTEXT)
        responses = drawing.by_question(engine(requests))
        (out / f".{name}").write_text(json.dumps(responses))
        (out / f".{name}").rename(out / f"{name}.json")

    draw("greedy", drawing.requests(folder, 1), temperature=0.0)
    draw("sampled", drawing.requests(folder, 6))
    draw("later", drawing.requests(folder, 4, first=2)[::-1], batch=8)
    draw("stopped", drawing.requests(folder, 6), stop=STOP)
    request = drawing.requests(folder, 6)[0]
    endless = (request._replace(question=str(i), seed=i) for i in itertools.count())
    with (out / "endless.jsonl").open("w", buffering=1) as file:
        for drawn in vllm_engine.vllm_engine(folder, drawing.settings(max_tokens=100), ends, CONTEXT)(endless):
            file.write(json.dumps(drawn) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
