"""The dataset on disk: what is written is read back, shared prompts, a million sequences, errors."""

import time
import tracemalloc

import numpy as np
import pytest

from east.data import indexed_dataset
from east.data.indexed_dataset import IndexedDataset, Writer
from tests.stages import folder_of


def write(folder, rows, vocabulary=100):
    """Rows of (prompt, completions); one SFT example per completion."""
    with folder_of("dataset", folder, {"made": "here"}, {}).writing() as (scratch, summary):
        writer = Writer(scratch, vocabulary)
        for question, (prompt, completions) in enumerate(rows):
            segment = writer.segment(prompt)
            for sample, tokens in enumerate(completions):
                writer.example(question, writer.sequence(segment, writer.segment(tokens), question, sample))
        writer.close([f"q{i}" for i in range(len(rows))])
        summary["vocabulary"] = vocabulary
    return folder


@pytest.mark.parametrize(("vocabulary", "width"), [(100, 2), (1 << 16, 2), (128256, 4)])
def test_tokens_are_read_as_written_and_stored_in_two_or_four_bytes(tmp_path, vocabulary, width):
    largest = vocabulary - 1
    folder = write(tmp_path / "d", [([1, 2, largest], [[3], [4, largest]]), ([5], [[6, 7]])], vocabulary)
    dataset = IndexedDataset(folder_of("dataset", folder), verify=True)
    assert [dataset.prompt(r).tolist() for r in range(3)] == [[1, 2, largest], [1, 2, largest], [5]]
    assert [dataset.completion(r).tolist() for r in range(3)] == [[3], [4, largest], [6, 7]]
    assert (folder / "tokens.bin").stat().st_size == width * 9, "the shared prompt is stored once"


@pytest.mark.parametrize(("tokens", "bad"), [([100], 100), ([3, -1], -1), ([5, 1 << 40], 1 << 40)])
def test_tokens_outside_the_vocabulary_are_an_error_and_are_not_written(tmp_path, tokens, bad):
    writer = Writer(tmp_path, vocabulary=100)
    for segment in ([7, 99], tokens, [0, 8]):
        writer.segment(segment)
    with pytest.raises(ValueError, match=f"found token id {bad}, expected .*below the vocabulary 100; .*again"):
        writer.close([])
    assert (tmp_path / "tokens.bin").stat().st_size == 0


def test_empty_segments_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="found a segment with no tokens, expected one or more"):
        Writer(tmp_path, vocabulary=100).segment([])


def test_blocks_of_tokens_and_rows_that_are_read_while_writing(tmp_path, monkeypatch):
    """Blocks of 4 tokens, with segments that fill a block, cross its end or are longer; rows are read and added in
    between."""
    monkeypatch.setattr(indexed_dataset, "BLOCK_TOKENS", 4)
    parts = [[1, 2], [3, 4], [5, 6, 7], [8, 9], list(range(10, 20)), [20]]
    with folder_of("dataset", tmp_path / "d", {}, {}).writing() as (scratch, summary):
        writer = Writer(scratch, 100)
        tokens = np.array(parts[0])
        stored = [writer.segment(tokens)] + [writer.segment(part) for part in parts[1:]]
        tokens[:] = 99  # the writer has copied them
        for row in range(3):
            writer.example(row, writer.sequence(stored[2 * row], stored[2 * row + 1], row, 0))
        questions, responses = writer.responses()
        assert questions.tolist() == responses.tolist() == [0, 1, 2]
        (starts, lengths), _ = writer.segments(np.array([2, 0]))
        assert (starts.tolist(), lengths.tolist()) == ([9, 0], [10, 2])
        prompts, completions = writer.segments(np.array([0, 1, 2]))[0], writer.segments(np.array([1, 2, 0]))[1]
        assert writer.sequences(prompts, completions, questions, -1).tolist() == [3, 4, 5]
        assert writer.sequence(stored[0], stored[5], 0, 1) == 6
        writer.close(["a", "b", "c"])
        summary["vocabulary"] = 100
    dataset = IndexedDataset(folder_of("dataset", tmp_path / "d"), verify=True)
    rows = [(0, 1), (2, 3), (4, 5), (0, 3), (2, 5), (4, 1), (0, 5)]
    assert [(dataset.prompt(r).tolist(), dataset.completion(r).tolist()) for r in range(7)] == [
        (parts[p], parts[c]) for p, c in rows
    ]
    assert dataset.sequences["question"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert dataset.sequences["sample"].tolist() == [0, 0, 0, -1, -1, -1, 1]


def test_tables_are_files_as_numpy_writes_them(tmp_path):
    """Byte for byte as np.save writes them, also when their length has more digits."""
    for count in (0, 1, 12):
        folder = write(tmp_path / str(count), [([1], [[2]])] * count or [([1], [])])
        for name in ("sequences.npy", "examples.npy"):
            values = np.load(folder / name)
            assert len(values) == count
            np.save(tmp_path / "again.npy", values)
            assert (folder / name).read_bytes() == (tmp_path / "again.npy").read_bytes()


def test_a_full_disk_is_a_one_line_error(tmp_path):
    writing = folder_of("dataset", tmp_path / "d", {}, {}).writing()
    with pytest.raises(ValueError, match="cannot write .No space left"), writing as (scratch, _):
        (scratch / "tokens.bin").symlink_to("/dev/full")
        writer = Writer(scratch, 100)
        writer.segment(range(100))
        writer.close([])


@pytest.mark.parametrize("part", ["prompt", "completion"])
def test_sequences_past_the_end_are_an_error(tmp_path, part):
    with folder_of("dataset", tmp_path / "d", {}, {}).writing() as (scratch, summary):
        writer = Writer(scratch, 100)
        inside, outside = writer.segment([1, 2]), (1, 2)
        writer.sequence(*((outside, inside) if part == "prompt" else (inside, outside)), 0, 0)
        writer.close([])
        summary["vocabulary"] = 100
    with pytest.raises(ValueError, match=r"sequences point past the end of tokens.bin; delete"):
        IndexedDataset(folder_of("dataset", tmp_path / "d"))


def test_the_error_for_a_truncated_file_names_it(tmp_path):
    folder = write(tmp_path / "d", [([1, 2], [[3]])])
    with (folder / "tokens.bin").open("r+b") as file:
        file.truncate(4)
    with pytest.raises(ValueError, match=r"tokens.bin: found 4 bytes, expected 6 bytes; delete"):
        IndexedDataset(folder_of("dataset", folder))


def test_a_changed_byte_is_detected_by_the_checksum(tmp_path):
    folder = write(tmp_path / "d", [([1, 2], [[3]])])
    with (folder / "tokens.bin").open("r+b") as file:
        file.write(b"\x07")
    IndexedDataset(folder_of("dataset", folder))
    with pytest.raises(ValueError, match="tokens.bin: content differs from its manifest"):
        IndexedDataset(folder_of("dataset", folder), verify=True)


def test_other_and_incomplete_folders_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="does not exist; make it with"):
        IndexedDataset(folder_of("dataset", tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is incomplete"):
        IndexedDataset(folder_of("dataset", tmp_path / "empty"))
    with folder_of("graded", tmp_path / "other", {}, {}).writing():
        pass
    with pytest.raises(ValueError, match="found kind 'graded', format 1; expected 'dataset'"):
        IndexedDataset(folder_of("dataset", tmp_path / "other"))
    (tmp_path / "other" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="not a manifest"):
        IndexedDataset(folder_of("dataset", tmp_path / "other"))


def test_a_column_of_another_dataset_is_an_error(tmp_path):
    dataset = IndexedDataset(folder_of("dataset", write(tmp_path / "d", [([1, 2], [[3]])])))
    with folder_of("weights", tmp_path / "w", {}, {"dataset": "elsewhere"}).writing() as (scratch, _):
        np.save(scratch / "weights.npy", np.ones(1))
    with pytest.raises(ValueError, match='dataset: found "elsewhere", expected "'):
        dataset.column(folder_of("weights", tmp_path / "w"), "weights", 1)


def test_a_million_sequences_open_in_half_a_second_and_are_read_at_random(tmp_path):
    """250,000 questions with 4 responses of the same content; access takes constant time."""
    questions = 250_000
    with folder_of("dataset", tmp_path / "big", {}, {}).writing() as (scratch, summary):
        writer = Writer(scratch, 100)
        prompt, completion = writer.segment(range(50)), writer.segment(range(50, 90))
        for question in range(questions):
            for sample in range(4):
                writer.example(question, writer.sequence(prompt, completion, question, sample))
        writer.close([])
        summary["vocabulary"] = 100
    began = time.perf_counter()
    dataset = IndexedDataset(folder_of("dataset", tmp_path / "big"))
    opened = time.perf_counter() - began
    assert len(dataset) == 4 * questions and opened < 0.5, f"opening took {opened:.3f} s"
    rows = np.random.default_rng(0).integers(0, len(dataset), 20_000)
    seconds = []
    for _ in range(5):  # the best of several, because other processes may use the cores
        began = time.perf_counter()
        total = sum(len(dataset.prompt(row)) + len(dataset.completion(row)) for row in rows)
        seconds.append(time.perf_counter() - began)
    assert total == 90 * len(rows)
    assert len(rows) / min(seconds) > 100_000, f"{len(rows) / min(seconds):.0f} rows a second"


def test_memory_of_the_writer_does_not_grow_with_the_sequences(tmp_path):
    """50,000 sequences and examples are tables of 2.6 MB; as Python tuples they would take more than 10 MB."""
    tracemalloc.start()
    try:
        writer = Writer(tmp_path, 100)
        prompt, completion = writer.segment(range(50)), writer.segment(range(50, 90))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for row in range(50_000):
            writer.example(row, writer.sequence(prompt, completion, row, 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1e6, f"{(peak - before) / 1e6:.1f} MB"
