"""Answer the questions of eval.split greedily with the trained model and grade them: writes eval/NAME/.

eval/NAME/ has samples/ and graded/ (as in training, one greedy response a question) and results.json.
"""

import argparse
import json
from pathlib import Path

from east import models
from east.commands.grade import grade_folder
from east.evaluation import compare
from east.evaluation.result import EvaluationResult
from east.run import files, pipeline
from east.run.config import BASE, Config
from east.sampling import draw, prompts

EXAMPLE = "east evaluate --config configs/1b_gsm8k_sft.yaml --against base"


def flags(parser: argparse.ArgumentParser) -> None:
    """--base and --against."""
    parser.add_argument("--base", action="store_true", help="the starting model, not the trained one")
    parser.add_argument("--against", metavar="NAME", help="compare with this result question by question")


def run(config: Config, arguments: argparse.Namespace) -> None:
    """The stage: final/ (or the starting model) to eval/NAME/."""
    base, against = arguments.base, arguments.against
    name = (BASE if base else config.label) + config.eval_suffix
    folder = config.folder / "eval" / name
    trained = None if base else config.folder_of("train") / "final"
    if trained:
        pipeline.at("model", trained).open()
    other = None if against is None else compare.result_folder(config, against)
    asked = prompts.ask(config, config.eval.split, config.eval.rows, trained)
    source = pipeline.evaluated_samples(config, folder)
    trust = config.model.trust_remote_code
    drawn = draw.draw(source, asked.questions, asked.prompts, asked.model, pipeline.greedy(config), trust=trust)
    target = pipeline.evaluated_graded(config, folder, samples=drawn.fingerprint)
    graded = grade_folder(source, target, config.grading)
    rows = list(files.read_jsonl(target.folder / "questions.jsonl"))
    verdicts = {row["question"]: bool(row["correct"][0]) for row in rows}
    golds = {row["question"]: row["gold"] for row in rows}
    right = compare.accuracy(list(verdicts.values()))
    text, ids = asked.prompts[0]
    result: EvaluationResult = {
        "name": name,
        "n": right["n"],
        "correct": right["correct"],
        "accuracy": right["accuracy"],
        "wilson_95": right["wilson_95"],
        "by": compare.by_group(verdicts, {q["id"]: q["meta"] for q in asked.questions}),
        "sources": graded.summary["sources"],
        "truncated": graded.summary["truncated"],
        "questions_left_out": {**asked.dropped, **drawn.summary["questions_left_out"]},
        "prompt": text,
        "prompt_tokens": ids,
        "bos_tokens": ids.count(asked.tokenizer.bos_token_id),
        "end_tokens": models.end_tokens(asked.model, asked.tokenizer),
        "sampling": drawn.config,
        "model": str(asked.model),
        "fingerprints": {**drawn.inputs, "samples": drawn.fingerprint, "graded": graded.fingerprint},
        "drawn_by": drawn.summary["drawn_by"],
    }
    if other:
        verdicts_of_other, graded_by = compare.read_verdicts(config, other, golds)
        result["against"] = {"name": other.name, "graded": graded_by, **compare.compare(verdicts, verdicts_of_other)}
    files.write_text(folder / "results.json", json.dumps(result, indent=1) + "\n")
    show(result, folder)


def show(result: EvaluationResult, folder: Path) -> None:
    """Print a result in a few lines."""
    low, high = result["wilson_95"]
    share = f"{result['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    print(f"{result['name']}: {result['correct']} of {result['n']} right, {share}")
    if "against" in result:
        a = result["against"]
        low, high = a["bootstrap_95"]
        print(f"    against {a['name']}: {a['difference']:+.1%} ({low:+.1%} to {high:+.1%})")
        flips = f"only this right {a['only_this_right']}, only the other {a['only_other_right']}"
        print(f"    {flips}, McNemar p = {a['mcnemar_p']:.3g}")
    print(f"    {folder / 'results.json'}")
