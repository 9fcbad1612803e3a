"""Run stages one after another on the ranks that the launcher started: two_ranks.py LIST.

LIST is a JSON file: for each step its stage, its settings, and folders to remove and to copy before it. In the folder
of LIST each rank writes rank_<r>.json: for each step its error, or null. An error of the last step ends the process.
"""

import json
import shutil
import signal
import sys
from pathlib import Path

import train
from east.run import config
from east.training import deepspeed_engine, reference

rank, _, _ = deepspeed_engine.start()
errors: list[str | None] = []
steps = json.loads(Path(sys.argv[-1]).read_text())
for step in steps:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a fresh process
    with deepspeed_engine.together():
        pass  # every rank has ended the step before, whose files it may have mapped into memory
    with deepspeed_engine.together():
        if rank == 0:
            for path in step.get("remove", []):
                shutil.rmtree(path)
            for source, target in step.get("copy", []):
                shutil.copytree(source, target, dirs_exist_ok=True)
    try:
        {"train": train.train, "reference": reference.run}[step["stage"]](config.parse(step["settings"]))
        errors.append(None)
    except ValueError as error:
        if step is steps[-1]:
            raise
        errors.append(str(error))
    Path(sys.argv[-1]).with_name(f"rank_{rank}.json").write_text(json.dumps(errors))
