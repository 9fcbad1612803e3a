"""Which responses become examples: rules, seeds per question, mismatched pairs, the token contract."""

import collections
import time

import numpy as np
import pytest

from east.data import examples
from east.data.indexed_dataset import IndexedDataset, Writer
from east.run import config
from east.run.config import Examples
from tests.stages import folder_of


def graded(question="q", clusters=(0, 0, 1, 1, 1, 2), right=(0,), sources=None, match=None):
    """A graded question. clusters: of the responses in order; right: the right clusters. Cluster 0 is not the largest
    one on purpose."""
    correct = [c in right for c in clusters]
    return {
        "question": question,
        "cluster": list(clusters),
        "correct": correct,
        "source": sources or ["boxed"] * len(clusters),
        "string_match": match or correct,
    }


def choose(loss, row, usable=None, **rules):
    return examples.choose(loss, row, usable or [True] * len(row["correct"]), Examples(**rules))


def test_sft_draws_right_responses_only_and_at_most_all_of_them():
    drawn = choose("sft", graded(), per_question=5)
    assert sorted(i for i, _, _ in drawn) == [0, 1]


def test_pairs_are_distinct_and_have_a_right_and_a_wrong_response():
    pairs = choose("dpo", graded(), per_question=6)
    assert len(set(pairs)) == 6
    assert {(i in (0, 1), j in (2, 3, 4, 5)) for i, j, _ in pairs} == {(True, True)}
    assert len(choose("dpo", graded(), per_question=100)) == 2 * 4


def test_kto_draws_right_and_wrong_responses_without_pairs():
    drawn = choose("kto", graded(), per_question=2)
    assert [label for _, _, label in drawn] == [True, True, False, False]
    assert all(rejected == -1 for _, rejected, _ in drawn)


def test_the_most_frequent_wrong_answer():
    """Wrong clusters: 1 with three responses, 2 with one; only responses of cluster 1 are rejected ones."""
    row = graded(clusters=(0, 0, 1, 1, 1, 2))
    drawn = {j for seed in range(40) for _, j, _ in choose("dpo", row, seed=seed, wrong_answer="most_frequent")}
    assert drawn == {2, 3, 4}
    drawn = {j for seed in range(40) for _, j, _ in choose("dpo", row, seed=seed)}
    assert drawn == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("loss", "row", "rules", "reason"),
    [
        ("sft", graded(right=()), {}, "no right response"),
        ("dpo", graded(clusters=(0, 0)), {}, "no wrong response to pair"),
        ("sft", graded(clusters=(0, 0)), {"drop_all_right": True}, "drop_all_right"),
        ("sft", graded(sources=["boxed"] * 2 + ["last number"] * 4), {"drop_unboxed": True}, "drop_unboxed"),
        ("sft", graded(match=[True, False] + [False] * 4), {"drop_disagreement": True}, "drop_disagreement"),
    ],
)
def test_rules_that_leave_questions_out(loss, row, rules, reason):
    assert reason in choose(loss, row, **rules)
    if rules:
        assert not isinstance(choose(loss, row), str), "the question is used when the rule is off"


def test_unusable_and_excluded_responses_are_never_drawn():
    drawn = choose("sft", graded(), usable=[False] + [True] * 5, per_question=5)
    assert [i for i, _, _ in drawn] == [1]
    left_out = graded(clusters=(0, 0, 1, -1, -1, -1))
    assert {j for s in range(20) for _, j, _ in choose("dpo", left_out, seed=s)} == {2}


def test_draws_depend_on_question_and_seed_alone():
    row = graded(clusters=tuple([0] * 50 + [1] * 50))
    other = {**row, "question": "another"}
    assert choose("dpo", row, seed=3) == choose("dpo", row, seed=3)
    assert len({tuple(choose("dpo", r, seed=s)) for r in (row, other) for s in range(3)}) == 6


def built(folder, loss="kto", questions=5, **rules):
    """A dataset of `questions` questions with two right and two wrong responses each."""
    rules = Examples(**{"kl_plans": 3, **rules})
    rows = []
    for q in range(questions):
        drawn = {
            "question": f"q{q}", "prompt_tokens": [1, 10 + q], "sample": [0, 1, 2, 3],
            "tokens": [[100 + 10 * q + s, 2] for s in range(4)], "finish_reason": ["stop"] * 4,
        }  # fmt: skip
        rows.append((drawn, graded(f"q{q}", clusters=(0, 0, 1, 1))))
    with folder_of("dataset", folder, {}, {}).writing() as (scratch, summary):
        writer = Writer(scratch, vocabulary=300)
        ids, counts = examples.build(writer, loss, rules, rows)
        writer.close(ids, examples.mismatched_pairs(writer, rules) if loss == "kto" else None)
        summary.update(counts, vocabulary=300)
    return IndexedDataset(folder_of("dataset", folder))


def test_mismatched_pairs_have_a_response_of_another_question(tmp_path):
    dataset = built(tmp_path / "d", per_question=2, kl_plans=4)
    assert dataset.kl is not None and dataset.kl.shape == (4, 5 * 4)
    for plan in dataset.kl:
        for example, row in zip(dataset.examples, plan, strict=True):
            assert dataset.prompt(row).tolist() == dataset.prompt(example["response"]).tolist()
            other = (int(dataset.completion(row)[0]) - 100) // 10
            assert other != example["question"]
    assert len({tuple(dataset.completion(r)[0] for r in plan) for plan in dataset.kl}) == 4, "plans differ"


def test_mismatched_pairs_use_the_responses_of_all_questions_equally(tmp_path):
    dataset = built(tmp_path / "d", questions=6, per_question=1, kl_plans=1)
    assert dataset.kl is not None
    used = collections.Counter((int(dataset.completion(r)[0]) - 100) // 10 for r in dataset.kl[0])
    assert set(used.values()) == {2}, "in a cycle, the responses of each question go to one other question"


def lengths_written(folder, questions):
    """A writer with an example per completion of each question. questions: (prompt length, completion lengths)."""
    writer = Writer(folder, vocabulary=300)
    for question, (prompt, completions) in enumerate(questions):
        segment = writer.segment(range(prompt))
        for sample, length in enumerate(completions):
            row = writer.sequence(segment, writer.segment(range(length)), question, sample)
            writer.example(question, row)
    return writer


def test_mismatched_pairs_by_the_definition(tmp_path):
    """Where every response fits, one is drawn for each example, in order, from those of the next question in the
    cycle."""
    questions = [(3, [4, 5, 6]), (2, [7]), (9, [8, 9]), (1, [10, 11, 12, 13])]
    writer = lengths_written(tmp_path, questions)
    rules = Examples(seed=5, kl_plans=3)
    plans = examples.mismatched_pairs(writer, rules)
    for number, plan in enumerate(plans):
        rng = np.random.default_rng([5, number, examples._stable("kl")])
        cycle = rng.permutation(4).tolist()
        expected = []
        for question, (prompt, completions) in enumerate(questions):
            others = questions[cycle[(cycle.index(question) + 1) % 4]][1]
            expected += [(prompt, others[int(rng.integers(len(others)))]) for _ in completions]
        (_, prompts), (_, completions) = writer.segments(plan)
        assert list(zip(prompts.tolist(), completions.tolist(), strict=True)) == expected


def test_mismatched_pairs_fit_into_max_length(tmp_path):
    """With max_length 20 only the completion of 5 fits the prompt of 15; without it there is an error."""
    questions = [(15, [3]), (1, [19]), (1, [18]), (1, [5]), (1, [17])]
    writer = lengths_written(tmp_path, questions)
    for plan in examples.mismatched_pairs(writer, Examples(max_length=20, kl_plans=5)):
        (_, prompts), (_, completions) = writer.segments(plan)
        assert (prompts + completions <= 20).all() and completions[0] == 5
    writer = lengths_written(tmp_path, questions[:3])
    with pytest.raises(ValueError, match="no response of another question fits .* prompt of 15 tokens; raise"):
        examples.mismatched_pairs(writer, Examples(max_length=20, kl_plans=1))


def test_pairs_of_a_hundred_thousand_questions_take_seconds(tmp_path):
    writer = lengths_written(tmp_path, [(1, [1])] * 2)
    count = 100_000
    rows = writer.sequences(*writer.segments(np.zeros(count, dtype=np.int64)), np.arange(2, count + 2), 0)
    for question, row in enumerate(rows.tolist(), 2):
        writer.example(question, row)
    began = time.perf_counter()
    plans = examples.mismatched_pairs(writer, Examples(kl_plans=2))
    assert plans.shape == (2, count + 2) and time.perf_counter() - began < 5


def test_kto_with_one_question_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="of one question, expected two or more"):
        built(tmp_path / "d", questions=1)


def test_the_error_for_an_empty_dataset_names_the_rules(tmp_path):
    writer = Writer(tmp_path, vocabulary=300)
    drawn = {"question": "q", "prompt_tokens": [1], "sample": [0], "tokens": [[5, 2]], "finish_reason": ["stop"]}
    with pytest.raises(ValueError, match="no training example is left; .*no right response: 1"):
        examples.build(writer, "sft", Examples(), [(drawn, graded(clusters=(0,), right=()))])


def test_what_is_left_out_is_counted(tmp_path):
    """max_length 3: the responses of question a are too long (prompt 2 + response 2), and one of b is cut."""
    writer = Writer(tmp_path, vocabulary=300)
    long = {"question": "a", "prompt_tokens": [1, 3], "sample": [0, 1], "tokens": [[5, 2], [6, 2]]}
    short = {"question": "b", "prompt_tokens": [1], "sample": [0, 1], "tokens": [[5, 2], [6, 7]]}
    rows = [
        ({**long, "finish_reason": ["stop"] * 2}, graded("a", (0, 0))),
        ({**short, "finish_reason": ["stop", "length"]}, graded("b", (0, 0))),
    ]
    ids, counts = examples.build(writer, "sft", Examples(max_length=3, keep_truncated=False), rows)
    assert ids == ["b"]
    assert counts["questions_left_out"] == {"no right response of usable length": 1}
    assert counts["responses_left_out"] == {"longer than max_length": 2, "cut by max_tokens (keep_truncated: false)": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_tokens": [1, 1, 7]}, "question 'q', sample 0: found 2 BOS in the prompt, expected one"),
        ({"prompt_tokens": [7]}, "found 0 BOS in the prompt, expected one"),
        ({"tokens": [[]]}, "an empty response"),
        ({"tokens": [[5, 2, 6, 2]]}, r"found an end token \[2\] inside the response"),
        ({"tokens": [[5, 6]]}, "finish_reason 'stop' but its last token 6 is no end token"),
        ({"finish_reason": ["length"]}, "finish_reason 'length' but its last token 2 is an end token"),
    ],
)
def test_token_contract(change, message):
    row = {"question": "q", "sample": [0], "prompt_tokens": [1, 7], "tokens": [[5, 2]], "finish_reason": ["stop"]}
    examples.check_tokens(row, bos=1, ends={2}, stops=False)
    with pytest.raises(ValueError, match=message):
        examples.check_tokens({**row, **change}, bos=1, ends={2}, stops=False)


def test_token_contract_of_stored_sequences():
    """With arrays, as the dataset returns them; for a tokenizer without BOS, prompts are not checked for one."""
    prompt, completion = np.array([1, 7], dtype=np.uint16), np.array([5, 2], dtype=np.uint16)
    assert examples.token_fault(prompt, completion, 1, {2}) is None
    assert examples.token_fault(prompt[1:], completion, None, {2}) is None
    assert "inside the response" in (examples.token_fault(prompt, completion, 1, {2, 5}) or "")


def test_by_default_every_epoch_has_its_own_plan_of_mismatched_pairs():
    run = {"run": "r", "model": {"path": "m"}, "train": {"epochs": 5}}
    assert config.parse(run).examples.kl_plans == 5
    assert config.parse({**run, "examples": {"kl_plans": 2}}).examples.kl_plans == 2


def test_order_of_questions_in_the_table(tmp_path):
    dataset = built(tmp_path / "d", loss="dpo")
    assert dataset.question_ids() == [f"q{i}" for i in range(5)]
    assert dataset.examples["question"].tolist() == list(range(5))
    assert np.all(dataset.examples["rejected"] >= 0)
