"""Draw n responses to every training question: python sample.py --config FILE, or east sample --config FILE.

Writes samples/. Killed and started again it draws what is missing; a raised sampling.n draws the others.
"""

import argparse
import sys
from pathlib import Path

from east import models
from east.run import command_line, pipeline, summaries
from east.run.config import Config
from east.sampling import draw, imported, prompts, rendering, samples, stopping
from east.sampling.first_answers import FirstAnswers

EXAMPLE = "python sample.py --config configs/1b_gsm8k_sft.yaml sampling.n=32"


def run(config: Config, _: argparse.Namespace) -> None:
    """The stage: questions to samples/; or, with sampling.responses, responses made elsewhere."""
    asked, sampling, artifact = prompts.ask(config), config.sampling, pipeline.samples(config)
    if sampling.responses:
        ends, trust = set(models.end_tokens(asked.model, asked.tokenizer)), config.model.trust_remote_code
        end = rendering.end_of_turn(asked.tokenizer, ends, config.task)
        vocabulary, path = models.vocabulary(asked.model, trust), Path(sampling.responses)
        of_file = path, asked.questions, asked.prompts, asked.tokenizer
        manifest = imported.import_responses(artifact, *of_file, end, vocabulary)
    else:
        rule = sampling.adaptive
        trust = config.model.trust_remote_code
        settled = stopping.stopping_rule(rule.tolerance, config.grading) if rule else None
        thinking = samples.opens_thought(asked.prompts[0][0], asked.questions[0]["question"])
        answers = FirstAnswers(config.grading, thinking)
        asked_of = artifact, asked.questions, asked.prompts, asked.model
        manifest = draw.draw(*asked_of, sampling, settled, answers, trust)
    summary = {**manifest.summary, "questions_dropped": asked.dropped}
    summaries.show("samples", artifact.folder, summary)


if __name__ == "__main__":
    command_line.main(sys.modules[__name__], "sample.py")
