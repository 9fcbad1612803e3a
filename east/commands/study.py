"""Many runs side by side: the experiments of a study file over its tasks and seeds; --config names the study file.

After a stop or a kill the same command continues.
"""

import argparse

from east.study import runner
from east.study.study_file import Study
from east.study.study_file import load as load

EXAMPLE = "east study --config configs/study_small.yaml seeds=[0]"


def run(study: Study, _: argparse.Namespace) -> None:
    """Run every cell that is not done."""
    runner.run(study)
