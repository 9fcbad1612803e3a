"""Resuming: a run that is killed at any moment and started again has the same weights; on other ranks it has the same
loss curve; an error on one rank stops all.

Runs are forked from a process that has imported torch and DeepSpeed (fork_ranks.py), which makes 52 kills affordable.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from east.run import config, files
from east.training import metrics
from tests.conftest import ROOT, environment, losses, prepare, settings

LORA = {"r": 4, "alpha": 4}
PHASES = ("start-up", "step", "checkpoint", "export")


class Forks:
    """The process that forks ranks (fork_ranks.py); one request and answer at a time."""

    def __init__(self, logs: Path):
        self.logs, self.count = logs, 0
        command = [sys.executable, "-m", "tests.fork_ranks"]
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True)

    def ask(self, request: dict[str, Any]) -> Any:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, run: dict[str, Any], ranks: int, **more: Any) -> list[int]:
        self.count += 1
        return self.ask({"run": run, "ranks": ranks, "log": str(self.logs / str(self.count)), **more})

    def poll(self, processes: list[int]) -> list[int | None]:
        return self.ask({"poll": processes})

    def wait(self, processes: list[int], seconds: float = 60) -> list[int | None]:
        """Exit statuses by rank. Processes that still run after `seconds` are killed, and the test fails."""
        end = time.monotonic() + seconds
        while None in (statuses := self.poll(processes)):
            if time.monotonic() > end:
                for process, status in zip(processes, statuses, strict=True):
                    if status is None:
                        os.kill(process, signal.SIGKILL)
                pytest.fail(f"exit statuses {statuses} after {seconds} s: {self.log(0)}")
            time.sleep(0.005)
        return statuses

    def run(self, run: dict[str, Any], ranks: int, **more: Any) -> list[int | None]:
        return self.wait(self.start(run, ranks, **more))

    def log(self, rank: int) -> str:
        """The last output of a rank of the newest run."""
        return Path(f"{self.logs / str(self.count)}.{rank}").read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_model) -> Path:
    tmp = tmp_path_factory.mktemp("resume")
    for loss in ("sft", "dpo", "kto"):
        prepare(tmp, tiny_model, loss={"name": loss}, examples={"kl_plans": 3})
    return tmp


@pytest.fixture(scope="module")
def forks(tmp_path_factory) -> Iterator[Forks]:
    instance = Forks(tmp_path_factory.mktemp("logs"))
    yield instance
    instance.server.communicate(timeout=60)


@pytest.fixture(scope="module")
def run(prepared, tiny_model) -> Callable[..., dict[str, Any]]:
    """Settings of a run of six steps, by name, loss and ZeRO stage. more: keys of the section train."""

    def settings_of(name: str, loss: str = "sft", zero: int = 0, lora: Any = None, **more: Any) -> dict[str, Any]:
        return settings(
            prepared, tiny_model, name=name, loss={"name": loss}, model={"path": str(tiny_model), "lora": lora},
            examples={"kl_plans": 3},  # all runs share a dataset; the default would depend on their epochs
            train={"deepspeed": str(ROOT / f"ds_configs/zero{zero}.json"), **more},
        )  # fmt: skip

    return settings_of


def folder_of(values: dict[str, Any]) -> Path:
    return config.parse(values).folder_of("train")


def curve(values: dict[str, Any]) -> list[float]:
    return losses(config.parse(values))


def assert_same(resumed: Path, undisturbed: Path) -> None:
    """Check that weights are equal bit for bit, that every step is logged once with the same loss, and that no
    temporary files are left."""
    names = sorted(p.relative_to(undisturbed).as_posix() for p in (undisturbed / "final").rglob("*.safetensors"))
    assert names
    for name in names:
        assert files.file_digest(resumed / name) == files.file_digest(undisturbed / name), name
    rows, expected = metrics.read(resumed), metrics.read(undisturbed)
    assert [(r["step"], r["loss"]) for r in rows] == [(r["step"], r["loss"]) for r in expected]
    assert [r["step"] for r in rows] == list(range(len(rows)))
    assert not list(resumed.glob(".final.*")), "a killed export left files behind"
    assert [p.name for p in (resumed / "checkpoint").glob("step_*")] == [f"step_{len(rows)}"]


class Progress:
    """The progress of a run as its folder shows it. writer: id of the process that would export the model."""

    def __init__(self, folder: Path, writer: int = 0):
        path, checkpoints = folder / "metrics.jsonl", folder / "checkpoint"
        self.rows = path.read_bytes().count(b"\n") if path.exists() else 0
        latest = checkpoints / "latest"
        self.latest = int(latest.read_text().removeprefix("step_")) if latest.exists() else 0
        self.incomplete = set()  # checkpoints newer than `latest`, with the time of their last change
        for path in checkpoints.glob("step_*"):
            with contextlib.suppress(FileNotFoundError):  # the run may remove an older one at any moment
                if int(path.name.removeprefix("step_")) > self.latest:
                    self.incomplete.add((path.name, path.stat().st_mtime_ns))
        self.exporting = any(folder.glob(f".final.*-{writer}"))

    def phase(self, before: "Progress") -> str:
        """The phase of a run that was started when its progress was `before`."""
        if self.exporting:
            return "export"
        if self.incomplete - before.incomplete:
            return "checkpoint"
        return "step" if self.rows > max(before.rows, before.latest) else "start-up"


def kill_in(forks: Forks, rng: random.Random, phase: str, values: dict[str, Any], ranks: int) -> str | None:
    """Start a run and kill its ranks, one and then the others, when it reaches the phase.

    Returns the phase in which they were killed; None when the run ended first.
    """
    folder = folder_of(values)
    before = Progress(folder)
    processes = forks.start(values, ranks)
    while phase != "start-up" and Progress(folder, processes[0]).phase(before) != phase:
        statuses = forks.poll(processes)
        assert not any(statuses), f"{statuses}: {[forks.log(rank) for rank in range(ranks)]}"
        if None not in statuses:
            return None
        time.sleep(0.001)
    time.sleep(rng.uniform(0, {"start-up": 0.6, "step": 0.1, "checkpoint": 0.005, "export": 0.05}[phase]))
    rng.shuffle(order := list(processes))
    for process in order:  # one is killed, and then the others, as a launcher does when a rank dies
        os.kill(process, signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.02))
    killed_in = Progress(folder, processes[0]).phase(before)
    return killed_in if -signal.SIGKILL in forks.wait(processes) else None


CASES = {
    "sft-full": (1, dict(loss="sft", checkpoint_every=1)),
    "kto-lora-dropout": (1, dict(loss="kto", lora={**LORA, "dropout": 0.1}, checkpoint_every=2)),
    "dpo-full-zero2": (2, dict(loss="dpo", zero=2, checkpoint_every=2)),
    "sft-lora-zero2": (2, dict(loss="sft", zero=2, lora=LORA, checkpoint_every=1)),
}  # fmt: skip
KILLS = {"start-up": 3, "step": 4, "checkpoint": 4, "export": 2}
kills: Counter[str] = Counter()  # by phase


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(forks, run, case):
    """13 times SIGKILL. Whenever the run reaches its end, its files are equal to those of an undisturbed run."""
    ranks, change = CASES[case]
    plain, killed = run(f"{case}-plain", epochs=8, **change), run(f"{case}-killed", epochs=8, **change)
    assert forks.run(plain, ranks) == [0] * ranks, forks.log(0)
    rng = random.Random(case)
    phases = [phase for phase, times in KILLS.items() for _ in range(times) if phase != "export"]
    rng.shuffle(phases)
    phases += ["export"] * KILLS["export"]
    while phases:
        killed_in = kill_in(forks, rng, phases[0], killed, ranks)
        if killed_in:
            kills[killed_in] += 1
            phases.pop(0)
        else:
            assert_same(folder_of(killed), folder_of(plain))
            shutil.rmtree(folder_of(killed))
    assert forks.run(killed, ranks) == [0] * ranks, forks.log(0)
    assert_same(folder_of(killed), folder_of(plain))


def test_every_phase_was_killed():
    """Of the test above: 52 kills, at least 3 in every phase of a run."""
    if not kills:
        pytest.skip("checks the kills of the test above")
    assert sum(kills.values()) == sum(KILLS.values()) * len(CASES) == 52
    assert all(kills[phase] >= 3 for phase in PHASES), kills


@pytest.fixture(scope="module")
def alone(forks, run) -> dict[str, Any]:
    """An undisturbed run on one process."""
    values = run("alone")
    assert forks.run(values, 1) == [0], forks.log(0)
    return values


def stop_after(forks: Forks, values: dict[str, Any], steps: int, ranks: int) -> Path:
    """Train `steps` steps and remove the model, as if the run had been killed then; returns its checkpoint folder."""
    values = {**values, "train": {**values["train"], "max_steps": steps}}
    assert forks.run(values, ranks) == [0] * ranks, forks.log(0)
    shutil.rmtree(folder_of(values) / "final")
    return folder_of(values) / "checkpoint"


@pytest.mark.parametrize("zero", range(4))
def test_a_lora_checkpoint_is_small_and_resumes_bit_for_bit(forks, run, tiny_model, zero):
    """It contains the 1,000 trained parameters and their moments, but not the frozen base (40 KB and more, tied)."""
    plain, stopped = (run(f"lora-{name}{zero}", zero=zero, lora={"r": 1, "alpha": 1}) for name in ("plain", "stopped"))
    assert forks.run(plain, 1) == [0], forks.log(0)
    checkpoint = stop_after(forks, stopped, 3, 1)
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert size < (tiny_model / "model.safetensors").stat().st_size
    assert forks.run(stopped, 1) == [0], forks.log(0)
    assert_same(folder_of(stopped), folder_of(plain))


@pytest.mark.parametrize(("before", "after"), [((1, 4), (1, 3)), ((2, 4), (1, 4)), ((1, 4), (2, 1))], ids=str)
def test_resuming_on_other_ranks_or_micro_batches_keeps_the_loss_curve(forks, run, alone, before, after):
    """before, after: (ranks, micro_batch) before and after the stop. Every step has the same examples and tokens."""
    name = f"moved-{before}-{after}".translate({ord(c): "" for c in "(), "})
    stop_after(forks, run(name, micro_batch=before[1]), 3, before[0])
    resumed = run(name, micro_batch=after[1])
    assert forks.run(resumed, after[0]) == [0] * after[0], forks.log(0)
    assert curve(resumed) == pytest.approx(curve(alone), rel=1e-5)
    rows, expected = metrics.read(folder_of(resumed)), metrics.read(folder_of(alone))
    assert [(r["tokens"], r["examples"], r["lr"]) for r in rows] == [
        (r["tokens"], r["examples"], r["lr"]) for r in expected
    ]


@pytest.mark.parametrize(("zero", "later"), [(2, 2), (3, 3), (2, 0), (0, 2), (1, 3)])
def test_a_checkpoint_of_other_ranks_or_zero_stage_is_a_one_line_error(forks, run, zero, later):
    """Checkpoints of ZeRO 1 to 3 are sharded over ranks: they resume on as many ranks and in the same stage only."""
    name = f"refused-{zero}-{later}"
    stop_after(forks, run(name, zero=zero), 1, 2 if zero == later else 1)
    assert forks.run(run(name, zero=later), 1) == [1], forks.log(0)
    assert "cannot resume" in forks.log(0) and "use the ranks and ZeRO stage that wrote it" in forks.log(0)


@pytest.mark.parametrize(("loss", "zero"), [("kto", 2), ("dpo", 3)])
def test_a_rank_without_examples_takes_part_in_a_step(forks, run, loss, zero):
    """The first step of an epoch has all examples but one: in the second one rank has an example, the other none."""
    kept = int(np.load(config.parse(run("tail", loss)).folder_of("weights") / "kept.npy").sum())
    one, two = run(f"tail-{loss}-1", loss, batch_size=kept - 1), run(f"tail-{loss}-2", loss, zero, batch_size=kept - 1)
    assert forks.run(one, 1) == [0], forks.log(0)
    assert forks.run(two, 2) == [0, 0], forks.log(0)
    assert [r["examples"] for r in metrics.read(folder_of(two))] == [kept - 1, 1, kept - 1, 1]
    assert curve(two) == pytest.approx(curve(one), rel=1e-5)


def test_an_incomplete_checkpoint_is_never_loaded(forks, run, alone):
    """Folders that `latest` does not name: one is half written, one is empty, one is of a step that runs again."""
    values = run("torn")
    checkpoint = stop_after(forks, values, 2, 1)
    for step in (3, 4):
        shutil.copytree(checkpoint / "step_2", checkpoint / f"step_{step}")
    for path in (checkpoint / "step_4").iterdir():
        os.truncate(path, path.stat().st_size // 2)
    (checkpoint / "step_9").mkdir()
    assert forks.run(values, 1) == [0], forks.log(0)
    assert_same(folder_of(values), folder_of(alone))


@pytest.mark.parametrize("text", ["", "step_", "step_7", "..", "\udcff\udcfe"])
def test_a_damaged_latest_is_a_one_line_error(forks, run, text):
    values = run("damaged")
    checkpoint = folder_of(values) / "checkpoint"
    if not checkpoint.exists():
        stop_after(forks, values, 2, 1)
    (checkpoint / "latest").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert forks.run(values, 1) == [1]
    assert "expected the name of a checkpoint in the same folder; delete" in forks.log(0)
    assert (checkpoint / "step_2").is_dir()


def test_a_damaged_checkpoint_is_a_one_line_error(forks, run):
    values = run("broken")
    checkpoint = stop_after(forks, values, 2, 1)
    for path in (checkpoint / "step_2").iterdir():
        os.truncate(path, path.stat().st_size // 2)
    assert forks.run(values, 1) == [1]
    assert "step_2: cannot resume (" in forks.log(0) and "Traceback" not in forks.log(0)


def test_a_full_disk_stops_every_rank_and_keeps_the_older_checkpoint(forks, run):
    """Rank 0 cannot write files of more than 60,000 bytes: neither its optimizer shard nor the model fits."""
    plain, limited = run("roomy", zero=2), run("full", zero=2)
    assert forks.run(plain, 2) == [0, 0], forks.log(0)
    checkpoint = stop_after(forks, limited, 2, 2)
    assert forks.run(limited, 2, file_limit=60_000) == [1, 1]
    for rank in (0, 1):
        assert "step_4: cannot write (File too large); what was complete before is intact" in forks.log(rank)
        assert "Traceback" not in forks.log(rank)
    assert [p.name for p in checkpoint.glob("step_*")] == ["step_2"]
    assert forks.run(limited, 2) == [0, 0], forks.log(0)
    assert_same(folder_of(limited), folder_of(plain))
    shutil.rmtree(folder_of(limited) / "final")
    assert forks.run(limited, 2, file_limit=60_000) == [1, 1]
    assert "cannot write" in forks.log(0) and "File too large" in forks.log(1) and "Traceback" not in forks.log(0)
    assert not list(folder_of(limited).glob("*final*"))


def test_an_error_on_rank_0_alone_stops_every_rank(forks, run, prepared):
    """Errors: a folder of another run, metrics.jsonl cannot be written, reference/ cannot be written."""
    claimed = run("claimed")
    stop_after(forks, claimed, 1, 1)
    other = run("claimed", lr=5e-4)
    assert forks.run(other, 2) == [1, 1]
    assert "was made from something else" in forks.log(0) and "rank 0: " in forks.log(1)
    unlogged = run("unlogged")
    (folder_of(unlogged) / "metrics.jsonl").mkdir(parents=True)
    assert forks.run(unlogged, 2) == [1, 1]
    assert "metrics.jsonl: cannot write (Is a directory)" in forks.log(1)
    unscored = run("unscored", "dpo")
    folder = config.parse(unscored).folder_of("reference")
    folder.rename(prepared / "aside")
    folder.write_text("in the way")
    try:
        assert forks.run(unscored, 2, program="reference") == [1, 1]
        assert "cannot write (Not a directory)" in forks.log(1)
    finally:
        folder.unlink()
        (prepared / "aside").rename(folder)


def test_after_sigterm_to_one_rank_all_ranks_save_and_exit(forks, run):
    values = run("terminated", "dpo", zero=2, epochs=50, checkpoint_every=1000)
    processes = forks.start(values, 2)
    while len(metrics.read(folder_of(values))) < 2:
        assert forks.poll(processes) == [None, None], forks.log(0)
        time.sleep(0.02)
    os.kill(processes[1], signal.SIGTERM)
    assert forks.wait(processes) == [143, 143], forks.log(0)
    steps = len(metrics.read(folder_of(values)))
    assert (folder_of(values) / "checkpoint" / "latest").read_text() == f"step_{steps}"
