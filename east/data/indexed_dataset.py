"""The dataset of token ids on disk: its writer and its reader.

    dataset/   tokens.bin      token ids of prompts and completions, one after the other, uint16 or uint32
               sequences.npy   a row per sequence: offset and length of its prompt and its completion in tokens.bin
               examples.npy    a row per training example: the row numbers of its sequences
               kl.npy          KTO only [plans, examples]: row number of each example's mismatched pair
               questions.json  question ids; the `question` fields are positions in this list

Prompt and completion are separate segments of tokens.bin: a prompt of many sequences is stored once, and a mismatched
pair (prompt of one question, completion of another) adds a row but no tokens.
"""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from east.run import files
from east.run.artifacts import Artifact, Manifest

SEQUENCE = np.dtype(
    [
        ("prompt_offset", "<i8"),
        ("prompt_length", "<i4"),
        ("completion_offset", "<i8"),
        ("completion_length", "<i4"),
        ("question", "<i4"),
        ("sample", "<i4"),
    ]
)
EXAMPLE = np.dtype(
    [
        ("question", "<i4"),
        ("response", "<i8"),  # sequence row of the response; of the chosen one where examples are pairs
        ("rejected", "<i8"),  # sequence row of the rejected response of a pair; -1 where examples are not pairs
        ("desirable", "?"),  # KTO: whether the response is right; True for SFT and DPO
    ]
)
BLOCK_TOKENS = 1 << 17  # tokens that are checked and written at a time: a block fits into the processor's cache
BUFFER_BYTES = 1 << 20

Segments = tuple[NDArray[Any], NDArray[Any]]  # offsets and lengths, in tokens


class Writer:
    """Appends segments, sequences and examples to the files of a folder; its memory does not grow with their number.

    Token ids are checked and written a block at a time: the error for a bad id may be raised some calls after its
    `segment`, but nothing of its block is written.
    """

    def __init__(self, folder: Path, vocabulary: int):
        self.folder = folder
        self.dtype = np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")
        self.vocabulary = vocabulary
        self._file = (folder / "tokens.bin").open("wb")
        self._block = np.empty(BLOCK_TOKENS, dtype=np.int64)
        self._written = self._filled = 0
        self._sequences = _Table(folder / "sequences.npy", SEQUENCE)
        self._examples = _Table(folder / "examples.npy", EXAMPLE)

    def segment(self, tokens: ArrayLike) -> tuple[int, int]:
        """Store token ids [tokens]; returns (offset, length). Raises ValueError without tokens, and for ids of this
        block that are not in the vocabulary."""
        ids = np.asarray(tokens, dtype=np.int64)
        if not ids.size:
            raise ValueError("found a segment with no tokens, expected one or more; sample again")
        if self._filled + ids.size > self._block.size:
            self._flush()
            if ids.size > self._block.size:
                self._block = np.empty(ids.size, dtype=np.int64)
        offset, end = self._written + self._filled, self._filled + ids.size
        self._block[self._filled : end] = ids
        self._filled = end
        return offset, ids.size

    def sequence(self, prompt: tuple[int, int], completion: tuple[int, int], question: int, sample: int) -> int:
        """Add a sequence of two stored segments, given as (offset, length); returns its row number."""
        return self._sequences.append(*prompt, *completion, question, sample)

    def sequences(
        self, prompts: Segments, completions: Segments, questions: ArrayLike, samples: ArrayLike
    ) -> NDArray[np.int64]:
        """Add many sequences at once, arguments [sequences] or scalars; returns their row numbers [sequences]."""
        columns = np.broadcast_arrays(*prompts, *completions, questions, samples)
        rows = np.empty(columns[0].size, dtype=SEQUENCE)
        for name, column in zip(SEQUENCE.names or (), columns, strict=True):
            rows[name] = column
        return self._sequences.extend(rows)

    def segments(self, rows: NDArray[np.int64]) -> tuple[Segments, Segments]:
        """(prompts, completions) of the sequences `rows` added so far, each as (offsets, lengths) in the shape of
        `rows`."""
        s = self._sequences.rows()[rows]
        return (s["prompt_offset"], s["prompt_length"]), (s["completion_offset"], s["completion_length"])

    def example(self, question: int, response: int, rejected: int = -1, desirable: bool = True) -> None:
        """Add a training example by the row numbers of its sequences."""
        self._examples.append(question, response, rejected, desirable)

    def responses(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(questions, response rows) of the examples added so far, each [examples]."""
        examples = self._examples.rows()
        return examples["question"].astype(np.int64), examples["response"].astype(np.int64)

    def close(self, question_ids: list[str], kl: NDArray[np.int64] | None = None) -> None:
        """Write the last block and all tables, and push the files to the disk. kl: [plans, examples], KTO only. Raises
        ValueError for ids of the last block that are not in the vocabulary."""
        self._flush()
        files.flush(self._file)
        self._file.close()
        self._sequences.close()
        self._examples.close()
        if kl is not None:
            assert kl.ndim == 2 and kl.shape[1] == self._examples.length
            np.save(self.folder / "kl.npy", kl)
        (self.folder / "questions.json").write_text(json.dumps(question_ids))

    def _flush(self) -> None:
        ids = self._block[: self._filled]
        outside = (ids < 0) | (ids >= self.vocabulary)
        if outside.any():
            raise ValueError(
                f"found token id {ids[outside][0]}, expected ids from 0 and below the vocabulary {self.vocabulary}; "
                "the samples are of another model: sample again"
            )
        self._file.write(ids.astype(self.dtype).data)  # not tofile, whose error for a full disk has no errno
        self._written += self._filled
        self._filled = 0


class _Table:
    """A structured .npy file to which rows are appended. Its header, in which numpy leaves room for the length, is
    written again at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]):
        self.path, self.dtype, self.length = path, dtype, 0
        formats = {"<i8": "q", "<i4": "i", "|b1": "?"}
        self._pack = struct.Struct("<" + "".join(formats[dtype[name].str] for name in dtype.names or ())).pack
        self._file = path.open("wb", buffering=BUFFER_BYTES)
        self._header()
        self._start = self._file.tell()

    def append(self, *values: int) -> int:
        """Add a row; returns its number."""
        self._file.write(self._pack(*values))
        self.length += 1
        return self.length - 1

    def extend(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Add rows; returns their numbers."""
        self._file.write(rows.data)
        self.length += len(rows)
        return np.arange(self.length - len(rows), self.length)

    def rows(self) -> NDArray[Any]:
        """All rows so far, a view into the file."""
        self._file.flush()
        return np.asarray(np.memmap(self.path, self.dtype, "r", offset=self._start, shape=(self.length,)))

    def close(self) -> None:
        """Write the final length and push the file to the disk."""
        self._file.seek(0)
        self._header()
        assert self._file.tell() == self._start
        files.flush(self._file)
        self._file.close()

    def _header(self) -> None:
        fields = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, fields)


class IndexedDataset:
    """Memory-mapped reader. Opening reads the offsets of the table: a few ms for a million sequences.

    sequences: [sequences] of SEQUENCE. examples: [examples] of EXAMPLE. kl: [plans, examples], or None.
    Raises ValueError for a folder that is missing, truncated, not a dataset, or made from something else than
    `artifact`. verify=True also checks the checksums of its files.
    """

    def __init__(self, artifact: Artifact, verify: bool = False):
        folder, make = artifact.folder, artifact.command
        self.folder = folder
        self.manifest = artifact.open()
        if verify:
            artifact.verify(self.manifest)
        self.fingerprint = self.manifest.fingerprint
        try:
            self.vocabulary = int(self.manifest.summary["vocabulary"])
            dtype = np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")
            # plain arrays over the mapped files: slicing a np.memmap builds a np.memmap, at ten times the cost
            self._tokens = np.asarray(np.memmap(folder / "tokens.bin", dtype=dtype, mode="r"))
            self.sequences = np.asarray(np.load(folder / "sequences.npy", mmap_mode="r"))
            self.examples = np.asarray(np.load(folder / "examples.npy", mmap_mode="r"))
            kl = folder / "kl.npy"
            self.kl = np.asarray(np.load(kl, mmap_mode="r")) if kl.exists() else None
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"{folder}: cannot be read as a dataset ({error}); delete it and run `{make}`") from None
        if (self.sequences.dtype, self.examples.dtype) != (SEQUENCE, EXAMPLE):
            raise ValueError(f"{folder}: its tables have unexpected columns; delete it and run `{make}`")
        self._prompts = self.sequences["prompt_offset"], self.sequences["prompt_length"]
        self._completions = self.sequences["completion_offset"], self.sequences["completion_length"]
        for offsets, lengths in (self._prompts, self._completions):
            if len(offsets) and int((offsets + lengths).max()) > self._tokens.size:
                raise ValueError(f"{folder}: sequences point past the end of tokens.bin; delete it and run `{make}`")

    def __len__(self) -> int:
        return len(self.examples)

    def prompt(self, row: int) -> NDArray[Any]:
        """Prompt token ids of sequence `row`, a view into the file."""
        return self._segment(self._prompts, row)

    def completion(self, row: int) -> NDArray[Any]:
        """Completion token ids of sequence `row`, a view into the file."""
        return self._segment(self._completions, row)

    def _segment(self, segments: tuple[NDArray[Any], NDArray[Any]], row: int) -> NDArray[Any]:
        offsets, lengths = segments
        start = offsets.item(row)  # Python's integers slice faster than numpy's
        return self._tokens[start : start + lengths.item(row)]

    def keys(self) -> NDArray[np.uint64]:
        """A 128-bit hash of the token ids of each sequence and the length of its prompt, [sequences, 2]."""
        tokens, s = self._tokens.data, self.sequences
        fields = ("prompt_offset", "prompt_length", "completion_offset", "completion_length")
        digests, prompt, start = bytearray(), (-1, -1), hashlib.blake2b()
        for p, p_length, c, c_length in zip(*(s[name].tolist() for name in fields), strict=True):
            if (p, p_length) != prompt:  # successive sequences often share a prompt, which is then hashed once
                prompt = p, p_length
                start = hashlib.blake2b(p_length.to_bytes(8, "little"), digest_size=16)
                start.update(tokens[p : p + p_length])
            whole = start.copy()
            whole.update(tokens[c : c + c_length])
            digests += whole.digest()
        return np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2)

    def question_ids(self) -> list[str]:
        """Question ids; `question` fields are positions in this list."""
        path = self.folder / "questions.json"
        try:
            ids: list[str] = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ValueError(f"{path}: not a list of ids; delete {self.folder} and run `east index` again") from None
        return ids

    def column(self, artifact: Artifact, name: str, length: int) -> tuple[NDArray[np.float64], Manifest]:
        """The column `name` of an artifact, float64 [length] with one value per example or sequence, and its manifest.

        Raises ValueError when it was made for another dataset or from something else, or when its content has changed.
        """
        manifest = dataclasses.replace(artifact, inputs={**artifact.inputs, "dataset": self.fingerprint}).open()
        artifact.verify(manifest)
        values = np.load(artifact.folder / f"{name}.npy", mmap_mode="r")
        if values.shape != (length,):
            raise ValueError(
                f"{artifact.folder}: found shape {values.shape}, expected ({length},); delete it and run "
                f"`{artifact.command}`"
            )
        return values, manifest
