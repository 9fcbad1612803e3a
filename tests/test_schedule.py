"""Order of examples, their division over ranks and micro-batches, and the learning rate, worked by hand."""

import numpy as np
import pytest

from east.training import schedule


def test_every_example_once_per_epoch_also_in_a_last_step_that_is_not_full():
    """10 rows in batches of 4: steps of 4, 4, 2 per epoch, each epoch in a different order."""
    kept = np.arange(10) * 3
    steps = [schedule.step_rows(kept, s, 4, seed=1) for s in range(6)]
    assert [len(rows) for _, rows in steps] == [4, 4, 2, 4, 4, 2]
    assert [epoch for epoch, _ in steps] == [0, 0, 0, 1, 1, 1]
    epochs = [np.concatenate([r for e, r in steps if e == epoch]) for epoch in (0, 1)]
    assert all(sorted(e) == list(kept) for e in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize(("ranks", "micro"), [(1, 16), (1, 4), (2, 4), (1, 1), (3, 2), (5, 16)])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_share_divides_a_step_into_equal_numbers_of_micro_batches(ranks, micro, count):
    rows = np.arange(count)
    shares = [schedule.share(rows, rank, ranks, micro) for rank in range(ranks)]
    assert sorted(np.concatenate([p for s in shares for p in s])) == list(rows)
    assert len({len(s) for s in shares}) == 1, "every rank has the same number of micro-batches"
    assert max(len(p) for s in shares for p in s) <= micro


def test_learning_rate_by_hand():
    """10 steps, warm-up 0.2: 2 steps to the peak (1/2, 1), then linear over 8: 1, 7/8, ..., 1/8."""
    rates = [schedule.learning_rate(s, 10, 1.0, 0.2, "linear") for s in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    cosine = schedule.learning_rate(6, 10, 2.0, 0.2, "cosine")  # half-way: (1 + cos(pi/2)) / 2 = 1/2
    assert cosine == pytest.approx(1.0)
    assert schedule.learning_rate(9, 10, 2.0, 0.2, "constant") == 2.0


def test_learning_rate_is_that_of_transformers():
    """transformers' schedule at its step s + 1 in warm-up, and at s after it."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    expected = get_linear_schedule_with_warmup(optimizer, 3, 12).lr_lambdas[0]
    rates = [schedule.learning_rate(s, 12, 1.0, 0.25, "linear") for s in range(12)]
    assert rates == pytest.approx([expected(s + 1) if s < 3 else expected(s) for s in range(12)])


def test_share_tokens_by_hand():
    """Tokens 5, 9, 2, 7, 4 on 2 ranks, longest first to the rank with fewer tokens: 9 | 7, then 5 to rank 1 (7 < 9),
    4 to rank 0 (9 < 12), 2 to rank 1 (12 < 13). First fit into 10 tokens: rank 0 [9], [4]; rank 1 [7, 2], [5]."""
    rows, tokens = np.arange(10, 15), np.array([5, 9, 2, 7, 4])
    shares = [[part.tolist() for part in schedule.share_tokens(rows, tokens, rank, 2, 10)] for rank in (0, 1)]
    assert shares == [[[11], [14]], [[13, 12], [10]]]


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("budget", [1, 300, 2000])
def test_share_tokens_keeps_all_examples_and_balances_ranks(ranks, budget):
    rng = np.random.default_rng(ranks + budget)
    rows, tokens = rng.permutation(100)[:16], rng.integers(50, 500, 16)
    length = dict(zip(rows.tolist(), tokens.tolist(), strict=True))
    shares = [schedule.share_tokens(rows, tokens, rank, ranks, budget) for rank in range(ranks)]
    assert sorted(np.concatenate([p for s in shares for p in s])) == sorted(rows)
    assert len({len(s) for s in shares}) == 1, "every rank has the same number of micro-batches"
    for part in (p for s in shares for p in s):
        assert len(part) == 1 or sum(length[int(r)] for r in part) <= budget or len(part) == 0
    loads = [sum(length[int(r)] for p in s for r in p) for s in shares]
    assert max(loads) - min(loads) <= max(tokens), "loads differ by one example at most"
