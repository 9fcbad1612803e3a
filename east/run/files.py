"""Files: written whole or not at all, read with the line that is wrong, and their digests."""

import contextlib
import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


def digest(value: Any) -> str:
    """SHA-256 (hex, 16 digits) of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the whole of the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with disk_errors(path):
        try:
            with scratch.open("wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))
                flush(file)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


def flush(file: BinaryIO) -> None:
    """Push a file's content to the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise ValueError(
            f"{path}: cannot write ({error.strerror}); what was complete before is intact; free the disk or "
            "choose another `run` folder, then run the same command"
        ) from error


def read_jsonl(path: Path) -> Iterator[Any]:
    """Rows of a JSON-lines file. Raises ValueError with file and line number for a line that is no object."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:  # also an integer of too many digits, too deep nesting
                    line = getattr(error, "msg", None) or " ".join(str(error).split())[:100]
                    raise ValueError(f"{path}, line {number}: not JSON ({line}); fix or remove the line") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {number}: found a {type(row).__name__}, expected an object")
                yield row
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot read ({getattr(error, 'strerror', None) or error}); check the path") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON lines; any text that a model can emit survives the round trip."""
    with path.open("w", encoding="ascii") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def sync(folder: Path) -> None:
    """Push a folder's entries to the disk: a rename in it then survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
