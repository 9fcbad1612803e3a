"""Studies: the cells and jobs of a study file, and a small study from its first command to its last."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from east.report import study_text
from east.run import files
from east.study import job_graph, plan, runner, study_file
from east.study.job_graph import Job
from east.study.ledger import Ledger
from tests.conftest import ROOT, command, environment

A = {"runs": {"sft": "sft.yaml", "dpo": "dpo.yaml"}, "a": 1.5, "select": [90, 100],
     "set": ["task.train_rows=[0,90]"]}  # fmt: skip


def write_study(folder: Path, **changes) -> Path:
    """A study file with run files for SFT and DPO next to it."""
    run = {"run": "unused", "model": {"path": "m"}, "sampling": {"engine": "transformers"}}
    (folder / "sft.yaml").write_text(yaml.safe_dump(run))
    (folder / "dpo.yaml").write_text(yaml.safe_dump({**run, "loss": {"name": "dpo"}}))
    values = {
        "name": "s", "folder": str(folder / "out"), "seeds": [0, 1], "n": 16,
        "tasks": [{"task": "t", "model": "m", **A}], "experiments": {"e": {}}, **changes,
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "study.yaml"


def load(folder: Path, **changes) -> study_file.Study:
    return study_file.load(str(write_study(folder, **changes)), [])


def test_a_grid_is_every_combination_and_equal_cells_are_one(tmp_path):
    """Per seed: 1 backbone; sft and dpo x (vanilla, lw_p, east): 6; a in {-1, 1.5} for SFT: 1 more, for east at the
    task's own a = 1.5 is in `table` already; n in {4, 16}: 1 more; rounds 2 of vanilla and east: 2 more."""
    cells = plan.expand(load(tmp_path, experiments={
        "table": {"loss": ["sft", "dpo"], "method": ["vanilla", "lw_p", "east"]},
        "curve": {"a": [-1, 1.5], "select": True},
        "n": {"n": [4, 16]},
        "rounds": {"method": ["vanilla", "east"], "rounds": 2},
    }))  # fmt: skip
    assert len(cells) == 2 * (1 + 6 + 1 + 1 + 2) == len({c.id for c in cells})
    east = next(c for c in cells if c.label == "sft-east-entropy-1.5" and (c.n, c.round, c.seed) == (16, 1, 0))
    assert east.experiments == ("table", "curve", "n", "rounds") and east.select
    assert [c.select for c in cells if c.label == "sft-vanilla" and c.round == 1] == [False, False]
    assert {c.loss for c in cells} == {None, "sft", "dpo"}


def test_a_cell_is_a_run_file_and_overrides(tmp_path):
    study = load(tmp_path, experiments={
        "curve": {"a": [-1]}, "five": {"strategy": ["rejection"], "a": [0.5]},
        "local": {"loss": ["dpo"], "method": ["lw_w"]}, "rounds": {"method": ["vanilla"], "rounds": 2},
    })  # fmt: skip
    runs = {c.label + f"-{c.round}": plan.settings(study, c) for c in plan.expand(study) if c.seed == 1}
    dropped, local = runs["sft-east-entropy--1-1"], runs["dpo-lw_w-1"]
    assert (dropped.weighting.a, dropped.weighting.zero, dropped.weighting.strategy) == (-1, "drop", "entropy")
    assert (local.loss.name, local.loss.local_weight, local.weighting.strategy) == ("dpo", "lw_w", "uniform")
    assert {c.sampling.seed for c in runs.values()} == {c.train.seed for c in runs.values()} == {1}
    assert runs["sft-east-rejection-0.5-1"].weighting.slug == "rejection-power-0.5"
    first, second = runs["sft-vanilla-1"], runs["sft-vanilla-2"]
    assert (second.round, second.model.path) == (2, str(first.folder_of("train") / "final"))
    assert first.folder_of("samples") == local.folder_of("samples") != second.folder_of("samples")


def test_shared_stages_are_planned_once_and_in_order(tmp_path):
    """Two losses with vanilla and EAST: one sampling, one grading, an index for each loss, one reference.
    n = 4 grades the same samples anew; round 2 samples with the model of round 1."""
    study = load(tmp_path, seeds=[0], experiments={
        "table": {"loss": ["sft", "dpo"], "method": ["vanilla", "east"]}, "n": {"n": [4]},
        "rounds": {"method": ["vanilla"], "rounds": 2},
    })  # fmt: skip
    cells = plan.expand(study)
    jobs_of = plan.Plan(study, cells)
    names = list(jobs_of.jobs)
    stages = [Path(name).name.split("-")[0] for name in names]
    expected = {"sample": 2, "grade": 3, "index": 4, "weigh": 6, "reference": 1, "train": 6, "evaluate": 7}
    assert {stage: stages.count(stage) for stage in set(stages)} == expected
    for i, job in enumerate(jobs_of.jobs.values()):
        assert all(names.index(need) < i for need in job.after), job
    small = next(c for c in cells if c.n == 4)
    assert "m-t/seed_0/n16/round_1/sample" in jobs_of.needs(small)
    assert not any("dpo" in name for name in jobs_of.needs(small))
    second = next(c for c in cells if c.round == 2)
    assert jobs_of.jobs[f"{second.place}/sample"].after == ("m-t/seed_0/n16/round_1/sft-vanilla/train",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiments": {"e": {"exponent": [1]}}}, r"unknown key `experiments.e.exponent`"),
        ({"sedes": [1]}, r"unknown key `sedes`; did you mean `seeds`\?"),
        ({"experiments": {"e": {"loss": ["kto"]}}}, r"e asks for \['kto'\], but m-t has runs for \['dpo', 'sft'\]"),
        ({"experiments": {"e": {"n": [32]}}}, r"e asks for n = 32, the study draws 16"),
        ({"tasks": [{"task": "t", "model": "m", **A, "select": None}], "experiments": {"e": {"select": True}}},
         r"m-t names no held-out train rows"),
        ({"tasks": [{"task": "t", "model": "m", **A, "select": [89, 95]}], "experiments": {"e": {"select": True}}},
         r"m-t selects on train rows \(89, 95\), but .*sft.yaml trains on \(0, 90\)"),
        ({"tasks": [{"task": "t", "model": "m", **A, "teach": "sft.yaml"}], "experiments": {"e": {"select": True}}},
         r"m-t selects on train rows \(90, 100\), but .*sft.yaml trains on all"),
        ({"tasks": [{"task": "t", "model": "m", **A, "set": []}], "experiments": {"e": {"select": True}}},
         r"but .*sft.yaml trains on all"),
        ({"seeds": [0, 0]}, r"the same seed, appears twice"),
        ({"seeds": []}, r"`seeds`: found \[\]"),
        ({"paper": [{"model": "m", "task": "t", "method": "EAST", "accuracy": 0.5}]}, r"`paper.*`: found 'EAST'"),
    ],
)  # fmt: skip
def test_bad_study_files_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_the_small_study_is_the_papers_grid(tmp_path):
    """The whole grid of the paper: what is removed from the file is missing in the report."""
    study = study_file.load(str(ROOT / "configs" / "study_small.yaml"), [])
    assert study.seeds == [0, 1, 2, 3, 4] and study.n == 128
    assert [task.name for task in study.tasks] == ["tiny-easy", "tiny-hard"]
    experiments = {name: e.model_dump(exclude_defaults=True) for name, e in study.experiments.items()}
    assert experiments == {
        "table1": {"loss": ["sft", "dpo", "kto"], "method": ["vanilla", "lw_w", "lw_p", "east"]},
        "fig3": {"a": [-3, -2, -1, -0.5, 0.5, 1, 1.5, 2, 3, "auto"], "select": True},
        "fig4": {"method": ["vanilla", "east"], "n": [16], "rounds": 3},
        "fig5": {"strategy": ["entropy", "accuracy", "rejection"], "a": [0.5, 1, 1.5]},
        "n": {"method": ["vanilla", "east"], "n": [8, 16, 32, 64, 128]},
    }
    assert tuple(experiments) == study_text.SHOWN
    assert all((task.model_dump()["a"], task.select) == (1, (4400, 4900)) for task in study.tasks)


def test_the_llama_study_is_the_papers_grid():
    """The 16 exponents that the paper searches, and auto; with the numbers of the paper's table."""
    study = study_file.load(str(ROOT / "configs" / "study_llama.yaml"), [])
    assert study.experiments["fig3"].a == [
        -3, -2.5, -2, -1.5, -1.25, -1, -0.5, 0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 2.5, 3, "auto",
    ]  # fmt: skip
    assert tuple(study.experiments) == study_text.SHOWN and study.seeds == [0, 1, 2, 3, 4]
    assert study.experiments["n"].method == ["vanilla", "east"] and study.experiments["fig4"].rounds == 3
    paper = {(p.model, p.task, p.loss, p.method): p.accuracy for p in study.paper}
    assert len(paper) == len(study.paper) == 28
    columns = {("llama-1b", "gsm8k"): [46.2, 50.1, 51.8, 50.2, 51.9, 53.0, 53.0],
               ("llama-1b", "math"): [28.5, 28.4, 29.4, 28.7, 29.7, 28.8, 29.9],
               ("llama-8b", "gsm8k"): [82.8, 85.0, 86.1, 84.6, 85.4, 83.9, 85.1],
               ("llama-8b", "math"): [50.4, 50.0, 51.2, 50.1, 50.9, 48.9, 51.0]}  # fmt: skip
    lines = [(None, "backbone"), *((loss, m) for loss in ("sft", "dpo", "kto") for m in ("vanilla", "east"))]
    for column, percents in columns.items():
        assert [paper[(*column, *line)] for line in lines] == pytest.approx([p / 100 for p in percents])
    for task in study.tasks:  # in MATH's own order the held-out rows would all be precalculus
        assert ("task.shuffle=0" in task.set) == (task.task == "math")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("study_*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_study_is_a_plan(path):
    study = study_file.load(str(path), [])
    cells = plan.expand(study)
    assert len(plan.Plan(study, cells).jobs) > 2 * len(cells)
    assert len({s["task"] for s in study.model_dump()["tasks"]}) == 2


def test_jobs_run_side_by_side_and_a_failure_stops_only_what_needs_it(tmp_path):
    """a -> b -> c and d; b fails: c never starts, d runs. a and d run at once: each waits for the other's file."""
    wait = (
        "import pathlib, sys, time; here, there = map(pathlib.Path, sys.argv[1:]); here.touch(); start = time.time()\n"
        "while not there.exists(): assert time.time() < start + 60; time.sleep(0.01)"
    )
    (tmp_path / "wait.py").write_text(wait)
    late = "import time; time.sleep(2); raise SystemExit('error: no luck')"  # d has ended by then
    (tmp_path / "fail.py").write_text(late)
    python, a, d = sys.executable, str(tmp_path / "a"), str(tmp_path / "d")
    ended: list[tuple[str, str | None]] = []
    job_graph.run(
        [
            Job("a", [python, str(tmp_path / "wait.py"), a, d]),
            Job("b", [python, str(tmp_path / "fail.py")], ("a",)),
            Job("c", [python, "-c", "1"], ("b",)),
            Job("x/d", ["/bin/sh", "-c", f"touch {d}; while ! test -e {a}; do sleep 0.1; done; echo $COLOUR"]),
        ],
        [{"COLOUR": "red"}, {"COLOUR": "red"}], False, tmp_path / "logs",
        lambda name, end: ended.append((name, end.error)) if end else None,
    )  # fmt: skip
    assert sorted(ended[:2]) == [("a", None), ("x/d", None)] and ended[2:] == [("b", "no luck")]
    assert (tmp_path / "logs" / "x" / "d.log").read_text() == "red\n"


def test_modules_that_the_warm_process_imports_exist():
    """multiprocessing ignores a preloaded module that it cannot import: a renamed one would only cost time."""
    assert all(importlib.util.find_spec(name) for name in job_graph.WARM if name.startswith("east."))


def test_jobs_start_in_the_order_given_where_several_could(tmp_path):
    """One slot: d is ready before b and c are, and starts after them."""
    jobs = [Job("a", ["true"]), Job("b", ["true"], ("a",)), Job("c", ["true"], ("a",)), Job("d", ["true"])]
    started: list[str] = []
    job_graph.run(
        jobs, [{}], False, tmp_path, lambda name, end: started.append(name) if end is None else None
    )  # fmt: skip
    assert started == ["a", "b", "c", "d"]


def test_a_second_study_in_a_folder_is_refused_in_one_line(tmp_path):
    """The lock is released when the first study ends, also by an interrupt."""
    with pytest.raises(KeyboardInterrupt), runner.locked(tmp_path):
        with pytest.raises(ValueError, match="another `east study` is running in it") as error, runner.locked(tmp_path):
            pass
        assert "\n" not in str(error.value)
        raise KeyboardInterrupt
    with runner.locked(tmp_path):
        pass


def answers(folder: Path, count: int) -> Path:
    """Questions that contain their answers: after seconds of training a tiny model answers some of them right."""
    rows = [{"id": f"q{i}", "question": f"{i} say {1 + i % 5}", "answer": str(1 + i % 5)} for i in range(count)]
    lines = [{**row, "solution": f"\\boxed{{{row['answer']}}}"} for row in rows]
    path = folder / "questions.jsonl"
    files.write_jsonl(path, lines)
    return path


def small_study(folder: Path) -> Path:
    """One seed: a backbone, two weightings, a smaller n, a second round."""
    source = str(answers(folder, 110))
    taught = folder / "taught"
    run = {
        "run": "unused", "model": {"path": str(taught / "round_1/train/backbone/final")},
        "task": {"name": "jsonl", "train": source, "test": source, "train_rows": [60, 80], "test_rows": [80, 100]},
        "sampling": {"engine": "transformers", "max_tokens": 6, "dtype": "float32", "batch": 160},
        "grading": {"workers": 1, "math_verify_sample": 0},
        "train": {"epochs": 1, "batch_size": 8, "micro_batch": 8, "lr": 1e-3, "dtype": "float32"},
    }  # fmt: skip
    teach = {
        "base": "sft.yaml", "run": str(taught), "name": "backbone", "model": {"path": str(taught / "untrained")},
        "task": {"train_rows": [0, 60]}, "sampling": {"responses": str(taught / "solutions.jsonl")},
        "weighting": {"strategy": "uniform"}, "train": {"epochs": 3, "lr": 3e-3},
    }  # fmt: skip
    path = write_study(
        folder, seeds=[0], n=8, parallel=2,
        tasks=[{"task": "say", "model": "tiny", "runs": {"sft": "sft.yaml"}, "teach": "teach.yaml",
                "select": [100, 110]}],
        experiments={
            "pair": {"method": ["vanilla", "east"], "select": True}, "n": {"n": [4]},
            "rounds": {"method": ["vanilla"], "rounds": 2},
        },
    )  # fmt: skip
    (folder / "sft.yaml").write_text(yaml.safe_dump(run))
    (folder / "teach.yaml").write_text(yaml.safe_dump(teach))
    return path


def stop(line: list[str], when: Path) -> str:
    """Start a command and send it SIGTERM once a file exists; returns its stderr."""
    process = subprocess.Popen(
        [sys.executable, *line[1:]], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not when.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    printed = process.communicate(timeout=60)[1]
    assert process.returncode == 130, printed[-2000:]
    return printed


def test_a_study_is_stopped_continues_after_a_failed_cell_and_skips_finished_cells(tmp_path):
    path = small_study(tmp_path)
    line = ["python", "-m", "east", "study", "--config", str(path)]
    assert "interrupted" in stop(line, tmp_path / "taught" / "round_1" / "train" / "backbone" / "plan.json")
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert {row["status"] for row in written["cells"]} == {"waiting"}
    inside = tmp_path / "out" / "tiny-say" / "seed_0" / "n8"
    blocked = inside / "round_1" / "train" / "sft-east-entropy-1"
    blocked.mkdir(parents=True)
    (blocked / "plan.json").write_text('{"config": {"somebody": "else"}, "inputs": {}}')
    first = command(*line)
    assert first.returncode == 1 and "Traceback" not in first.stderr, first.stderr[-2000:]
    rows = {row["id"]: row for row in json.loads((tmp_path / "out" / "study.json").read_text())["cells"]}
    failed = rows.pop("tiny-say-s0-n8-r1-sft-east-entropy-1")
    assert failed["status"] == "failed" and "was made from something else" in failed["error"]
    assert "1 of 5 cells failed" in first.stderr and {row["status"] for row in rows.values()} == {"done"}

    (blocked / "plan.json").unlink()
    second = command(*line)
    assert second.returncode == 0, second.stderr[-2000:]
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert {row["status"] for row in study["cells"]} == {"done"} and len(study["cells"]) == 5
    for row in study["cells"]:
        for key in ("eval", "eval_select"):
            if row[key]:
                result = json.loads((tmp_path / "out" / row[key] / "results.json").read_text())
                assert result["n"] == (20 if key == "eval" else 10)
        for key in ("weights", "graded", "samples"):
            assert row[key] is None or (tmp_path / "out" / row[key] / "manifest.json").exists()
    assert [row for row in study["cells"] if row["id"] in rows] == list(rows.values()), (
        "finished cells are not made again"
    )
    four = json.loads((inside.with_name("n4") / "round_1" / "graded" / "questions.jsonl").open().readline())
    eight = json.loads((inside / "round_1" / "graded" / "questions.jsonl").open().readline())
    assert (four["n"], eight["n"]) == (4, 8) and four["answer"] == eight["answer"][:4]

    began = (tmp_path / "out" / "logs").stat().st_mtime
    third = command(*line)
    assert third.returncode == 0 and (tmp_path / "out" / "logs").stat().st_mtime == began
    results_of_changed_inputs_are_not_kept(path, study["cells"])
    models_are_deleted_once_nothing_starts_from_them(path, study["cells"])


def waiting(path: Path, *changes: str) -> list[str]:
    """Labels and rounds of the cells that a start of the study would make."""
    study = study_file.load(str(path), list(changes))
    return sorted(f"{c.label} {c.n} {c.round}" for c in Ledger(study, plan.expand(study)).waiting())


def results_of_changed_inputs_are_not_kept(path: Path, rows: list[dict]):
    """All cells of a study are done. A cell is waiting again when anything its result was made from has changed."""
    out, everything = path.parent / "out", sorted(f"{sft(r)} {r['n']} {r['round']}" for r in rows)
    kept = (out / "study.json").read_text()
    assert waiting(path) == []
    assert len(waiting(path, "seeds=[7]")) == len(rows), "a start that asks for other cells ..."
    assert waiting(path) == [], "... forgets none"
    written = json.loads((out / "study.json").read_text())
    assert written["seeds"] == [0, 7] and [r["seed"] for r in written["cells"]] == [0] * len(rows) + [7] * len(rows)
    (out / "study.json").write_text(json.dumps({"cells": [{"id": "x"}]}))
    with pytest.raises(ValueError, match="not the rows of a study; delete it"):
        waiting(path)
    (out / "study.json").write_text(kept)
    teach = (path.parent / "teach.yaml").read_text()
    (path.parent / "teach.yaml").write_text(teach.replace("epochs: 3", "epochs: 4"))
    assert waiting(path) == everything
    (path.parent / "teach.yaml").write_text(teach)

    def after(file: Path, change) -> list[str]:
        """The waiting cells after a change of a file, which is then undone."""
        before = file.read_bytes()
        file.write_text(change(before.decode()))
        (out / "study.json").write_text(kept)
        cells = waiting(path)
        file.write_bytes(before)
        (out / "study.json").write_text(kept)
        assert waiting(path) == []
        return cells

    backbone = path.parent / "taught" / "round_1" / "train" / "backbone" / "final" / "config.json"
    assert after(backbone, lambda text: text + "\n") == everything
    vanilla = next(r for r in rows if (sft(r), r["n"], r["round"]) == ("sft-vanilla", 8, 1))

    def other(text: str) -> str:
        return json.dumps({**json.loads(text), "fingerprints": {"model": "another"}})

    assert after(out / vanilla["eval"] / "results.json", other) == ["sft-vanilla 8 1", "sft-vanilla 8 2"]
    assert after(out / vanilla["eval_select"] / "results.json", other) == ["sft-vanilla 8 1", "sft-vanilla 8 2"]
    graded = out / vanilla["graded"] / "manifest.json"
    changed = after(graded, lambda text: json.dumps({**json.loads(text), "fingerprint": "another"}))
    assert changed == ["sft-east-entropy-1 8 1", "sft-vanilla 8 1", "sft-vanilla 8 2"]


def sft(row: dict) -> str:
    """The label of a row's cell."""
    return Path(row["train"]).name if row["train"] else "backbone"


def models_are_deleted_once_nothing_starts_from_them(path: Path, rows: list[dict]):
    """keep_models: false. Round 1's model is kept while round 2 is waiting, and deleted when it is done."""
    out = path.parent / "out"
    study = study_file.load(str(path), ["keep_models=false"])
    ledger = Ledger(study, plan.expand(study))
    first, second = (next(r for r in rows if (sft(r), r["n"], r["round"]) == ("sft-vanilla", 8, t)) for t in (1, 2))
    final = {t: out / row["train"] / "final" for t, row in ((1, first), (2, second))}
    assert final[1].exists() and final[2].exists()
    ledger.rows[second["id"]]["status"] = "waiting"
    ledger.done(first["id"])
    assert final[1].exists(), "round 2 starts from it"
    ledger.done(second["id"])
    assert not final[1].exists() and not final[2].exists()
    assert Ledger(study, plan.expand(study)).waiting() == [], "the results of a deleted model are kept"


def test_a_larger_n_of_an_old_folder_is_refused_in_one_line(tmp_path):
    """n = 16 has samples of its own; in a study with n = 64 they would be the first 16 of its samples."""
    study = load(tmp_path, seeds=[0], n=64, experiments={"e": {"n": [16, 64]}})
    small = next(c for c in plan.expand(study) if c.n == 16)
    own = plan.settings(study, small).folder_of("samples")
    own.mkdir(parents=True)
    with pytest.raises(ValueError, match="found responses drawn for n = 16, expected a link to those for n = 64") as e:
        runner.link_samples(study, small)
    assert "\n" not in str(e.value) and own.is_dir()
    own.rmdir()
    runner.link_samples(study, small)
    runner.link_samples(study, small)
    assert own.readlink() == Path("../../n64/round_1/samples")
