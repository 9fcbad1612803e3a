"""The losses: which examples each one trains on, what else it needs, and what it logs.

Every stage that asks what a loss needs reads this table. To add a loss, add a row here and its function to
`training/losses.py`. No torch here: run files, the index and studies read the table, too.
"""

from typing import Literal, NamedTuple

Normalization = Literal["example", "sum", "token", "microbatch"]  # what SFT divides lp by, see training/losses.py


class LossKind(NamedTuple):
    """One loss.

    function: "module:name" of its function, called as `training.losses.LossFunction`.
    settings: the keys of the run file's `loss` section that it reads, besides `name` and `local_weight`.
    logs: the sums over a step that the function returns for metrics.jsonl, besides `loss` and `tokens`.
    pair: an example is a right (chosen) and a wrong (rejected) response; otherwise it is one response.
    labelled: examples are right and wrong responses, distinguished by `desirable`; otherwise right ones only.
    needs_reference: it reads the starting model's log-probabilities (`east reference`).
    mismatched: it reads z0, from pairs of a prompt and another question's response (`examples.kl_plans`).
    """

    function: str
    settings: tuple[str, ...]
    logs: tuple[str, ...]
    pair: bool = False
    labelled: bool = False
    needs_reference: bool = False
    mismatched: bool = False


LOSSES = {
    "sft": LossKind(
        "east.training.losses:sft_examples",
        settings=("normalization",),
        logs=("nll",),
    ),
    "dpo": LossKind(
        "east.training.losses:dpo_examples",
        settings=("beta",),
        logs=("reward_chosen", "reward_rejected", "accuracy"),
        pair=True,
        needs_reference=True,
    ),
    "kto": LossKind(
        "east.training.losses:kto_examples",
        settings=("beta", "lambda_desirable", "lambda_undesirable", "kl"),
        logs=("reward_desirable", "reward_undesirable", "desirable"),
        labelled=True,
        needs_reference=True,
        mismatched=True,
    ),
}
