"""Tells a user soon after sampling has started that answers are not found."""

from collections.abc import Iterable, Iterator

import tqdm

from east.grading import Endings, Grading, not_found_notice
from east.sampling.engine_interface import Drawn

ENOUGH = 100  # responses that ended


class FirstAnswers:
    """Looks for answers in the first ENOUGH responses that end, and prints at most one line, while drawing goes on."""

    def __init__(self, grading: Grading, thinking: bool = False) -> None:
        self.endings = Endings(grading.extraction, thinking)

    def watch(self, drawn: Iterable[Drawn]) -> Iterator[Drawn]:
        """Pass finished requests on. The line is printed after the request that completes the first ENOUGH."""
        for request in drawn:
            yield request
            if self.endings.ended < ENOUGH:
                self._count(request)
                if self.endings.ended == ENOUGH:
                    self._print()

    def end(self) -> None:
        """Everything is drawn: print the line if fewer than ENOUGH responses ended."""
        if self.endings.ended < ENOUGH:
            self._print()

    def _count(self, request: Drawn) -> None:
        for text, reason in zip(request.text, request.finish_reason, strict=True):
            if reason != "length" and self.endings.ended < ENOUGH:
                self.endings.read(text)

    def _print(self) -> None:
        if line := not_found_notice(self.endings.report()):
            with tqdm.tqdm.external_write_mode():  # above the progress bar
                print(line, flush=True)  # at once, also where the output is a file
