"""Packing: tokens, positions, segments and the shift of labels, worked by hand and by properties of random input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east.training.packing import pack, pad


def spans(batch) -> list[tuple[int, int, int, int]]:
    return [(s.start, s.stop, s.prefix_start, s.prefix_stop) for s in batch.segments.spans]


def test_two_sequences_by_hand():
    """[1 2 | 3 4 5] then [6 | 7]. Position 1 (token 2) predicts 3, 2 predicts 4, 3 predicts 5; position 5
    (token 6) predicts 7. The last token of a sequence predicts nothing."""
    batch = pack([[1, 2], [6]], [[3, 4, 5], [7]])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert batch.rows.tolist() == [1, 2, 3, 5]
    assert batch.targets.tolist() == [3, 4, 5, 7]
    assert batch.lengths == (3, 1) and batch.lengths_S.tolist() == [3, 1]
    assert spans(batch) == [(0, 5, 0, 0), (5, 7, 0, 0)]


def test_shared_prompt_by_hand():
    """[1 2 | 3 4] and [1 2 | 5 6 7] share the prompt: 1 2 3 4 5 6 7. Both first completion tokens are
    predicted at position 1; the second response continues the prompt's positions and sees tokens [0, 2)
    and itself."""
    batch = pack([[1, 2], [1, 2]], [[3, 4], [5, 6, 7]])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2, 3, 4]]
    assert batch.rows.tolist() == [1, 2, 1, 4, 5]
    assert batch.targets.tolist() == [3, 4, 5, 6, 7]
    assert spans(batch) == [(0, 4, 0, 0), (4, 7, 0, 2)]


def test_equal_prompts_need_not_be_next_to_each_other():
    """Chosen responses first, then rejected ones: prompts [1], [2], [1], [2]. Packed as 1 3, 5 | 2 4, 6; results
    are in the order of the input: targets 3, 4, 5, 6."""
    batch = pack([[1], [2], [1], [2]], [[3], [4], [5], [6]])
    assert batch.input_ids.tolist() == [[1, 3, 5, 2, 4, 6]]
    assert batch.rows.tolist() == [0, 3, 0, 3]
    assert batch.targets.tolist() == [3, 4, 5, 6]
    assert spans(batch) == [(0, 2, 0, 0), (2, 3, 0, 1), (3, 5, 0, 0), (5, 6, 3, 4)]


def test_sharing_can_be_switched_off():
    batch = pack([[1, 2], [1, 2]], [[3], [4]], share_prompts=False)
    assert batch.input_ids.tolist() == [[1, 2, 3, 1, 2, 4]]
    assert spans(batch) == [(0, 3, 0, 0), (3, 6, 0, 0)]


def test_prompts_of_equal_ids_but_different_type_are_equal():
    """A list and an int32 array of the same ids are the same prompt; a prefix of it is a different one."""
    batch = pack([[1, 2], np.array([1, 2], dtype=np.int32), [1]], [[3], [4], [5]])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 1, 5]]


def test_a_row_for_each_sequence_by_hand():
    """[1 2 | 3 4 5] and [6 | 7], filled up to rows of 5. Position 1 predicts 3, 2 predicts 4, 3 predicts 5;
    position 5, the first of the second row, predicts 7. Of the 10 positions 7 are tokens."""
    batch = pad([[1, 2], [6]], [[3, 4, 5], [7]])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]]
    assert batch.rows.tolist() == [1, 2, 3, 5]
    assert batch.targets.tolist() == [3, 4, 5, 7]
    assert batch.lengths == (3, 1) and batch.tokens == 7
    assert batch.position_ids is None and batch.segments is None


@pytest.mark.parametrize("make", [pack, pad])
@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[1]], [[2], [3]], "1 prompts but 2 completions"),
        ([], [], "nothing to pack"),
        ([[1], []], [[2], [3]], r"prompt 1 has shape \(0,\)"),
        ([[1], [2]], [[3], []], r"completion 1 has shape \(0,\)"),
    ],
)
def test_errors_name_the_bad_input(make, prompts, completions, message):
    with pytest.raises(ValueError, match=message):
        make(prompts, completions)


tokens = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.sampled_from([[1], [1, 2], [3]]), tokens), min_size=1, max_size=7), st.booleans())
def test_every_sequence_can_be_read_back(pairs, share):
    """The tokens that the queries of a segment see are, in order, exactly prompt + completion; each row predicts
    the token that follows it there; the input is unchanged."""
    prompts, completions = [p for p, _ in pairs], [np.array(c) for _, c in pairs]
    copies = [c.copy() for c in completions]
    batch = pack(prompts, completions, share)

    visible = []
    for s in batch.segments.spans:
        seen = [*range(s.prefix_start, s.prefix_stop), *range(s.start, s.stop)]
        assert batch.position_ids[0, seen].tolist() == list(range(len(seen)))
        visible.append((s, seen))
    sequences = sorted(batch.input_ids[0, seen].tolist() for _, seen in visible)
    assert sequences == sorted([*p, *c.tolist()] for p, c in zip(prompts, completions, strict=True))

    offset = 0
    for prompt, completion in zip(prompts, completions, strict=True):
        rows = batch.rows[offset : offset + len(completion)].tolist()
        seen = next(seen for s, seen in visible if rows[-1] in seen and (len(rows) == 1 or rows[1] >= s.start))
        context = batch.input_ids[0, seen[: seen.index(rows[0]) + 1]].tolist()
        assert context == prompt
        assert batch.targets[offset : offset + len(completion)].tolist() == completion.tolist()
        assert batch.position_ids[0, rows].tolist() == [len(prompt) - 1 + t for t in range(len(completion))]
        assert batch.input_ids[0, rows].tolist() == [prompt[-1], *completion[:-1].tolist()]
        offset += len(completion)
    assert all(np.array_equal(a, b) for a, b in zip(copies, completions, strict=True))


@given(st.lists(st.tuples(st.sampled_from([[1], [1, 2], [3]]), tokens), min_size=1, max_size=7))
def test_shared_batches_store_each_prompt_once(pairs):
    batch = pack([p for p, _ in pairs], [c for _, c in pairs])
    distinct = {tuple(p) for p, _ in pairs}
    assert batch.tokens == sum(map(len, distinct)) + sum(len(c) for _, c in pairs)
    assert [s.stop for s in batch.segments.spans[:-1]] == [s.start for s in batch.segments.spans[1:]]
    assert batch.segments.spans[0].start == 0 and batch.segments.spans[-1].stop == batch.tokens
