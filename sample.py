"""Draw n responses to every training question: python sample.py --config FILE [section.key=value ...]"""

import argparse

from east.commands import stages
from east.run import command_line
from east.run.config import Config
from east.sampling import samples


def main(config: Config, arguments: argparse.Namespace) -> None:
    if config.sampling.responses:
        return stages.import_responses(config)
    asked, folder = stages.ask(config), config.folder_of("samples")
    rule = stages.stopping_rule(config) if config.sampling.adaptive else None
    manifest = samples.draw(folder, asked.questions, asked.prompts, asked.model, config.sampling, rule)
    stages.report("samples", folder, {**manifest.summary, "questions_dropped": asked.dropped})


if __name__ == "__main__":
    command_line.run(main, argparse.ArgumentParser(description=__doc__))
