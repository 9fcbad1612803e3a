"""Speed of a large dataset on disk: python benchmarks/index.py [--sequences N] [--folder FOLDER].

Writing: `indexed_dataset.Writer`, from the first segment to closed files on the disk, in turn with `np.tofile` and
fsync of the same bytes, which are in memory already; the time to build the sequences is measured separately and
subtracted. Opening: `IndexedDataset` in a new process, with all its checks. Reading: prompt and completion of random
rows are copied into a buffer, as for packing a batch, by one thread. Every measurement runs in its own process; a
sample of what is read is compared with what was written.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from east.data.indexed_dataset import IndexedDataset, Writer
from east.run import files, pipeline

VOCABULARY = 151_936  # Qwen2.5's, so four bytes per token
SHARING = 4  # responses of a question
SHORTEST, LONGEST = 8, 1000
POOL = 1 << 20
FILES = ("tokens.bin", "sequences.npy", "examples.npy")
READS = 100_000


class Sequences:
    """Sequences that are slices of one array of random tokens: prompts of 100 +- 35, responses of 200 +- 80."""

    def __init__(self, sequences: int):
        rng = np.random.default_rng(0)
        self.pool = rng.integers(0, VOCABULARY, POOL)
        self.prompts = self._slices(rng, -(-sequences // SHARING), 100, 35)
        self.completions = self._slices(rng, sequences, 200, 80)

    def _slices(self, rng: np.random.Generator, count: int, mean: int, deviation: int) -> NDArray[np.int64]:
        lengths = np.clip(rng.normal(mean, deviation, count), SHORTEST, LONGEST).astype(np.int64)
        return np.stack([rng.integers(0, POOL - LONGEST, count), lengths], axis=1)

    def prompt(self, row: int) -> NDArray[np.int64]:
        start, length = self.prompts[row // SHARING].tolist()
        return self.pool[start : start + length]

    def completion(self, row: int) -> NDArray[np.int64]:
        start, length = self.completions[row].tolist()
        return self.pool[start : start + length]

    def seconds(self) -> float:
        """Processor time of slicing, which is not part of writing."""
        started = time.process_time()
        for row in range(len(self.completions)):
            if row % SHARING == 0:
                self.prompt(row)
            self.completion(row)
        return time.process_time() - started


def write(folder: Path, sequences: int) -> dict[str, float]:
    """seconds: of the writer; cpu: its processor time; sealing: seconds for hashes and manifest; memory: growth of the
    peak memory, in MB."""
    source = Sequences(sequences)
    building = source.seconds()
    before = peak()
    with dataclasses.replace(pipeline.at("dataset", folder), settings={}).writing() as (scratch, summary):
        started, worked = time.perf_counter(), time.process_time()
        writer = Writer(scratch, VOCABULARY)
        for row in range(sequences):
            if row % SHARING == 0:
                prompt = writer.segment(source.prompt(row))
            completion = writer.segment(source.completion(row))
            writer.example(row // SHARING, writer.sequence(prompt, completion, row // SHARING, row % SHARING))
        writer.close([str(i) for i in range(len(source.prompts))])
        written, worked = time.perf_counter(), time.process_time() - worked
        summary["vocabulary"] = VOCABULARY
    sealing, memory = time.perf_counter() - written, peak() - before
    return {"seconds": written - started - building, "cpu": worked - building, "sealing": sealing, "memory": memory}


def write_plain(source: Path, folder: Path) -> float:
    """Seconds of writing the files of `source` again, each in one call from memory."""
    contents = [np.fromfile(source / name, dtype=np.uint8) for name in FILES]
    folder.mkdir()
    started = time.perf_counter()
    for name, content in zip(FILES, contents, strict=True):
        with (folder / name).open("wb") as file:
            content.tofile(file)
            files.flush(file)
    return time.perf_counter() - started


def opening(folder: Path) -> float:
    """Seconds of opening the dataset."""
    started = time.perf_counter()
    IndexedDataset(pipeline.at("dataset", folder))
    return time.perf_counter() - started


def read(folder: Path, sequences: int) -> float:
    """Random rows per second, median of five passes over different rows; a thousand rows are also checked."""
    dataset, source = IndexedDataset(pipeline.at("dataset", folder)), Sequences(sequences)
    rng = np.random.default_rng(1)
    buffer = np.empty(2 * LONGEST, dtype=np.int64)
    seconds, reads = [], min(READS, 10 * sequences)
    for _ in range(5):
        rows = rng.integers(0, sequences, reads)
        started = time.perf_counter()
        for row in rows:
            prompt, completion = dataset.prompt(row), dataset.completion(row)
            buffer[: len(prompt)] = prompt
            buffer[len(prompt) : len(prompt) + len(completion)] = completion
        seconds.append(time.perf_counter() - started)
    for row in [*rng.integers(0, sequences, 1000), sequences - 1]:
        assert np.array_equal(dataset.prompt(row), source.prompt(row)), f"prompt of row {row} differs"
        assert np.array_equal(dataset.completion(row), source.completion(row)), f"completion of row {row} differs"
        assert dataset.examples[row].item() == (row // SHARING, row, -1, True), f"example {row} differs"
    assert len(dataset) == len(dataset.sequences) == sequences
    return reads / statistics.median(seconds)


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the function, called in a new process."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak() -> float:
    """Peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure, with 2 GB free per million sequences")
    arguments = parser.parse_args()
    writer: list[dict[str, float]] = []
    plain: list[float] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        folder = Path(scratch, "dataset")
        fresh(write, folder, arguments.sequences)  # warm-up; its files are those that np.tofile writes again
        for turn in range(arguments.rounds):
            again, copy = Path(scratch, f"again{turn}"), Path(scratch, f"plain{turn}")
            both = [
                lambda again=again: writer.append(fresh(write, again, arguments.sequences)),
                lambda copy=copy: plain.append(fresh(write_plain, folder, copy)),
            ]
            for run in both[:: (-1) ** turn]:  # in reversed order every other time, against drift
                os.sync()
                run()
            for written in (again, copy):
                for path in written.iterdir():
                    path.unlink()
        size = sum((folder / name).stat().st_size for name in FILES)
        opened = [fresh(opening, folder) for _ in range(arguments.rounds)]
        rate = fresh(read, folder, arguments.sequences)
    report(arguments, size, writer, plain, opened, rate)


def report(
    arguments: argparse.Namespace,
    size: int,
    writer: list[dict[str, float]],
    plain: list[float],
    opened: list[float],
    rate: float,
) -> None:
    """Print a table of medians and one JSON line."""
    seconds = [run["seconds"] for run in writer]
    ratio = statistics.median(p / s for s, p in zip(seconds, plain, strict=True))
    speeds = {name: [size / s / 1e6 for s in runs] for name, runs in (("writer", seconds), ("tofile", plain))}
    figures = {
        "writer_mb_per_second": statistics.median(speeds["writer"]),
        "tofile_mb_per_second": statistics.median(speeds["tofile"]),
        "writer_to_tofile": ratio,
        "writer_cpu_seconds": statistics.median(run["cpu"] for run in writer),
        "sealing_seconds": statistics.median(run["sealing"] for run in writer),
        "memory_growth_mb": max(run["memory"] for run in writer),
        "open_seconds": statistics.median(opened),
        "random_rows_per_second": rate,
    }
    print(f"{machine()}: {arguments.sequences:,} sequences, {size / 1e6:,.0f} MB, {arguments.rounds} rounds")
    for name, values in speeds.items():
        print(f"{name:8}{statistics.median(values):8,.0f} MB/s   all rounds: {', '.join(f'{v:,.0f}' for v in values)}")
    print(f"speed of the writer: {ratio:.0%} of tofile's (median of the rounds)")
    print(f"its processor time: {figures['writer_cpu_seconds']:.2f} s")
    print(f"growth of its memory: {figures['memory_growth_mb']:,.0f} MB at most")
    print(f"hashes and manifest: {figures['sealing_seconds']:.2f} s")
    print(f"opening: {figures['open_seconds'] * 1000:,.0f} ms; reading: {rate:,.0f} random rows per second")
    row = {"benchmark": "index", "machine": machine(), "sequences": arguments.sequences, "bytes": size}
    print(json.dumps({**row, "rounds": arguments.rounds, **{k: round(v, 4) for k, v in figures.items()}}))


def machine() -> str:
    """Name of the processor and number of cores."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].split(':')[1].strip() if names else platform.processor()} x {os.cpu_count()}"


if __name__ == "__main__":
    main()
