"""Text to verdict and cluster."""

from typing import Any

from east.grading.extraction import gold_answer as gold_answer
from east.grading.grader import Summary as Summary
from east.grading.grader import grade as grade
from east.grading.options import VERSION as VERSION
from east.grading.options import Grading as Grading
from east.grading.qwen_string import qwen_string as qwen_string

GradedQuestion = dict[str, Any]
