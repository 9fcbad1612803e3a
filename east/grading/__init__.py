"""Grading: from the text of a response to its answer, its verdict and its cluster.

`grade(questions, Grading())` yields a graded question for each question with its responses. In this order a response
passes through:

- `extraction`: the final answer of the response, behind its thoughts (`thoughts`) and behind a mark (`marks`,
  `json_replies`; `announced` reads what stands there), or at its end (`endings`, `sentences`),
- `mathematics/`: the answer's text as a tree, with its names and units (`reading`, from `spelling`, `lexer`, `units`,
  `qualifiers`, `parser`, `notations`, `prose`, `assignments`), and as a key that is equal for equal values
  (`canonical`, from `rational`, `numeric` and `balls`, `inequalities`, `intervals`, `matrices`). Values that are not
  rational are computed in child processes (`workers`) and cached (`value_cache`),
- `matching`: does it match the gold answer, by its key or by a convention of `options.Grading`?
- `grader`: clusters, entropy, accuracy and rejection of the question (`rows.GradedQuestion`).

`summary` counts what was found and compares a sample with Math-Verify; `not_found` tells a user where answers are not
found.
"""

from east.grading.extraction import SOURCES, gold_answer
from east.grading.grader import grade
from east.grading.labelled_cases import run_cases
from east.grading.not_found import Endings, not_found_advice, not_found_notice, printable
from east.grading.options import VERSION, Grading
from east.grading.qwen_string import with_string_match
from east.grading.rows import Cluster, GradedQuestion, QuestionToGrade
from east.grading.summary import DIFFERENCES, Summary
from east.grading.thoughts import in_thought, is_mark

__all__ = [
    "DIFFERENCES",
    "SOURCES",
    "VERSION",
    "Cluster",
    "Endings",
    "GradedQuestion",
    "Grading",
    "QuestionToGrade",
    "Summary",
    "gold_answer",
    "grade",
    "in_thought",
    "is_mark",
    "not_found_advice",
    "not_found_notice",
    "printable",
    "run_cases",
    "with_string_match",
]
