"""responses.jsonl while it grows: a line per finished request, safe against kill -9."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

import tqdm

from east.run import files
from east.run.pipeline import COMMANDS
from east.sampling.engine_interface import Drawn
from east.sampling.samples import AskedQuestion, ResponseLine, SampledQuestion, response_line, sampled_question


class Journal:
    """What responses.jsonl holds: `done` responses of each question, counts, and where each line is."""

    def __init__(self, path: Path, questions: list[str]):
        self.path, self.end = path, 0
        self.done = dict.fromkeys(questions, 0)
        self.counts = {"responses": 0, "tokens": 0, "truncated": 0}
        self.lines: dict[str, list[tuple[int, int]]] = {q: [] for q in questions}  # of each: offset, bytes

    @contextlib.contextmanager
    def locked(self) -> Iterator[FileIO]:
        """The file, open for appending by this process alone; unbuffered, so that every write is out at once.

        Raises ValueError when another process has it, or where the file system has no locks.
        """
        with files.disk_errors(self.path):
            file = self.path.open("ab", buffering=0)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.path}: another process is drawing into it; wait for it or stop it") from None
            except OSError as error:
                raise ValueError(
                    f"{self.path}: its file system cannot lock files ({error.strerror}); choose another `run` folder, "
                    "or mount it with locks"
                ) from None
            yield file

    def scan(self) -> None:
        """Enter every line; a torn last one, left by a kill, is cut off. Raises ValueError for a broken line."""
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    os.truncate(self.path, self.end)
                    break
                try:
                    self.add(json.loads(text), len(text))
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{self.path}, line {number}: not a line of responses; remove the line and run "
                        f"`{COMMANDS['samples']}`, which draws again what it held"
                    ) from None

    def append(self, file: FileIO, drawn: Iterable[Drawn], total: int) -> float:
        """Append requests as they finish, of `total` responses in all; returns the seconds that they took."""
        start, tokens = time.perf_counter(), 0
        with tqdm.tqdm(total=total, desc="sampling", unit=" responses", smoothing=0) as bar:
            for request in drawn:
                line = response_line(*request)
                data = memoryview(json.dumps(line).encode("ascii") + b"\n")
                size = len(data)
                with files.disk_errors(self.path):
                    while data:
                        data = data[file.write(data) :]
                self.add(line, size)
                tokens += sum(map(len, request.tokens))
                bar.set_postfix_str(f"{tokens / (time.perf_counter() - start):.0f} tokens/s", refresh=False)
                bar.update(len(request.tokens))
        with files.disk_errors(self.path):
            files.flush(file)
        return time.perf_counter() - start

    def add(self, line: ResponseLine, size: int) -> None:
        """Enter the line that is at the end of the file. Raises ValueError when it does not follow the others."""
        question = line["question"]
        if line["first"] != self.done[question]:
            raise ValueError(f"responses of {question} from {line['first']}, expected {self.done[question]}")
        self.lines[question].append((self.end, size))
        self.end += size
        self.done[question] += len(line["tokens"])
        self.counts["responses"] += len(line["tokens"])
        self.counts["tokens"] += sum(map(len, line["tokens"]))
        self.counts["truncated"] += line["finish_reason"].count("length")

    def question(self, question: AskedQuestion) -> SampledQuestion:
        """A question with its responses so far."""
        lines = []
        with self.path.open("rb") as file:
            for offset, size in self.lines[question["id"]]:
                file.seek(offset)
                lines.append(json.loads(file.read(size)))
        return sampled_question(question, lines, self.done[question["id"]])

    def sort(self) -> None:
        """Put the lines into the order of the questions, so that the file does not depend on completion order."""
        ordered = [line for lines in self.lines.values() for line in lines]
        if ordered == sorted(ordered):
            return
        scratch = self.path.with_name(".responses.jsonl.sorted")
        with self.path.open("rb") as source, scratch.open("wb") as target:
            for offset, size in ordered:
                source.seek(offset)
                target.write(source.read(size))
            files.flush(target)
        os.replace(scratch, self.path)
