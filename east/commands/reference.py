"""Score every stored sequence with the starting model, for DPO and KTO: writes reference/.

On several GPUs: deepspeed --module east reference --config X
"""

import argparse

from east.run.config import Config
from east.training import reference

EXAMPLE = "deepspeed --num_gpus 1 --module east reference --config configs/1b_gsm8k_dpo.yaml"


def run(config: Config, _: argparse.Namespace) -> None:
    """The stage: dataset/ and the starting model to reference/."""
    reference.run(config)
