"""Draw n responses to every training question: python sample.py --config FILE, or east sample --config FILE.

Writes samples/. Killed and started again it draws what is missing; a raised sampling.n draws the others.
"""

import argparse
import sys
from pathlib import Path

from east.run import command_line, pipeline, summaries
from east.run.config import Config
from east.sampling import draw, imported, prompts, stopping
from east.sampling.first_answers import FirstAnswers

EXAMPLE = "python sample.py --config configs/1b_gsm8k_sft.yaml sampling.n=32"


def run(config: Config, _: argparse.Namespace) -> None:
    """The stage: questions to samples/; or, with sampling.responses, responses made elsewhere."""
    asked, sampling, artifact = prompts.ask(config), config.sampling, pipeline.samples(config)
    if sampling.responses:
        path = Path(sampling.responses)
        manifest = imported.import_responses(artifact, path, asked.questions, asked.prompts, asked.tokenizer)
    else:
        rule = sampling.adaptive
        trust = config.model.trust_remote_code
        settled = stopping.stopping_rule(rule.tolerance, config.grading) if rule else None
        answers = FirstAnswers(config.grading)
        asked_of = artifact, asked.questions, asked.prompts, asked.model
        manifest = draw.draw(*asked_of, sampling, settled, answers, trust)
    summary = {**manifest.summary, "questions_dropped": asked.dropped}
    summaries.show("samples", artifact.folder, summary)


if __name__ == "__main__":
    command_line.main(sys.modules[__name__], "sample.py")
