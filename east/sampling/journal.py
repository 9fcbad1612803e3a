"""responses.jsonl while it is being written: a line per finished request, of which a kill loses at most the last."""

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
    """The content of responses.jsonl.

    done: number of responses by question id. counts: of responses, their tokens, and responses cut by max_tokens.
    lines: (offset, bytes) of each line, by question id. end: size of the file in bytes.
    """

    def __init__(self, path: Path, questions: list[str]):
        self.path, self.end = path, 0
        self.done = dict.fromkeys(questions, 0)
        self.counts = {"responses": 0, "tokens": 0, "truncated": 0}
        self.lines: dict[str, list[tuple[int, int]]] = {q: [] for q in questions}

    @contextlib.contextmanager
    def locked(self) -> Iterator[FileIO]:
        """The file, locked by this process and open for appending; without a buffer, so that a kill loses no write.

        Raises ValueError when another process has locked it, or when the file system has no locks.
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
        """Read all lines of the file. An incomplete last line, left by a kill, is cut off.

        Raises ValueError for another broken line.
        """
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
                        f"`{COMMANDS['samples']}`, which draws its responses again"
                    ) from None

    def append(self, file: FileIO, drawn: Iterable[Drawn], total: int) -> float:
        """Append a line for each request when it is finished; returns the duration in seconds. total: number of
        responses, for the progress bar."""
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
        """Count a line of `size` bytes at the end of the file. Raises ValueError unless its responses follow those of
        the same question so far."""
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
        """The question with all its responses so far."""
        lines = []
        with self.path.open("rb") as file:
            for offset, size in self.lines[question["id"]]:
                file.seek(offset)
                lines.append(json.loads(file.read(size)))
        return sampled_question(question, lines, self.done[question["id"]])

    def sort(self) -> None:
        """Sort the lines by question, so that the file does not depend on the order in which requests finished."""
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
