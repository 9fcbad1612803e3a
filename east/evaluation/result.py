"""What results.json of an evaluation has in it."""

from typing import Any, NotRequired, TypedDict


class Accuracy(TypedDict):
    """Right answers of some questions."""

    n: int  # questions
    correct: int  # right answers
    accuracy: float  # correct / n
    wilson_95: list[float]  # its 95 % interval: [low, high]


class Comparison(TypedDict):
    """One result minus another one on the same questions."""

    n: int  # questions
    only_this_right: int
    only_other_right: int
    difference: float  # of the two accuracies
    bootstrap_95: list[float]  # its 95 % interval: [low, high]
    mcnemar_p: float


class Against(Comparison):
    """A comparison with another result of the same run."""

    name: str  # of the other result
    graded: str  # fingerprint of the other result's graded folder


class EvaluationResult(Accuracy):
    """results.json: greedy answers of one model."""

    name: str  # of the folder: the model's label, and the rows where they are not the task's test rows
    by: dict[str, dict[str, Accuracy]]  # by level, type and subject, where the task has them, and their values
    sources: dict[str, int]  # where final answers were found, counted
    truncated: int  # responses that reached the token limit
    questions_left_out: dict[str, int]  # by reason
    prompt: str  # of the first question
    prompt_tokens: list[int]
    bos_tokens: int  # in prompt_tokens: 2 would be a template's and the tokenizer's
    end_tokens: list[int]  # ids that end a response
    sampling: dict[str, Any]  # settings of the samples folder
    model: str  # its folder
    fingerprints: dict[str, str]  # of model, questions, samples and graded
    drawn_by: dict[str, str]  # versions of the engine
    against: NotRequired[Against]
    stale: NotRequired[bool]  # not on disk: set by `run_results.results`
