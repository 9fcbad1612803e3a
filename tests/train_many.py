"""Train every run of a JSON list, on the ranks that the launcher started: train_many.py LIST."""

import json
import sys
from pathlib import Path

import train
from east.run import config

for values in json.loads(Path(sys.argv[-1]).read_text()):
    train.train(config.parse(values))
