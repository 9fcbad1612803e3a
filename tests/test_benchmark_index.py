"""The benchmark of the dataset on disk with few sequences: it compares what it reads with what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_benchmark_prints_its_figures(tmp_path):
    command = [sys.executable, "benchmarks/index.py", "--sequences", "2001", "--rounds", "1", "--folder", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    rows = 501 * 100 + 2001 * 200  # tokens of 501 prompts and 2,001 responses, within 5 %; 4 bytes each
    assert abs(found["bytes"] - 2 * 128 - 2001 * (32 + 21) - 4 * rows) < 0.05 * 4 * rows
    figures = ("writer_mb_per_second", "tofile_mb_per_second", "open_seconds", "random_rows_per_second")
    assert all(found[name] > 0 for name in figures)
    assert not list(tmp_path.iterdir()), "the scratch folder is removed"
