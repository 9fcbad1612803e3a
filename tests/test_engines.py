"""The sampling engines on a tiny random model: drawing tokens, the token contract, vLLM compared with transformers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from east import models
from east.sampling import engines, transformers_engine
from east.sampling.engine_interface import Drawn, context_limit
from tests import drawing

CONTEXT = 200


def engine(folder, **values):
    settings = drawing.settings(**values)
    return transformers_engine.transformers_engine(
        folder, settings, drawing.ends(folder), values.get("max_model_len", CONTEXT)
    )


@pytest.mark.parametrize(
    ("temperature", "top_p", "uniform", "token"),
    [
        (1.0, 1.0, 0.05, 0),  # cumulative sums 0.1, 0.3, 0.6, 1.0
        (1.0, 1.0, 0.15, 1),
        (1.0, 1.0, 0.45, 2),
        (1.0, 1.0, 0.95, 3),
        (0.5, 1.0, 0.12, 1),  # squares 0.01, 0.04, 0.09, 0.16 over 0.30: sums 0.033, 0.167, 0.467, 1
        (0.5, 1.0, 0.20, 2),
        (0.5, 1.0, 0.47, 3),
        (1.0, 0.6, 0.05, 2),  # 0.4 does not reach 0.6, with 0.3 it does: sums 0, 0, 3/7 = 0.4286, 1
        (1.0, 0.6, 0.42, 2),
        (1.0, 0.6, 0.43, 3),
        (1.0, 0.3, 0.01, 3),  # the most likely token alone reaches 0.3
    ],
)
def test_choose_inverts_the_cumulative_distribution(temperature, top_p, uniform, token):
    """p = 0.1, 0.2, 0.3, 0.4; the token is the first whose cumulative sum exceeds the uniform number."""
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    drawn = transformers_engine.choose(logits, torch.tensor([uniform], dtype=torch.float64), temperature, top_p)
    assert drawn.tolist() == [token]


def test_choose_draws_tokens_with_their_probabilities():
    """With 10,000 evenly spaced numbers, each token is drawn p * 10,000 times, up to one at each end."""
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 2
    grid = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = torch.bincount(transformers_engine.choose(logits.expand(10_000, -1), grid, 1.0, 1.0), minlength=50)
    expected = torch.softmax(logits[0].double(), -1) * 10_000
    assert (counts - expected).abs().max() <= 1.1


def test_uniforms_depend_on_seed_and_position_only():
    """A longer response begins like a shorter one; the numbers of successive seeds are not correlated."""
    assert np.array_equal(transformers_engine.uniforms(5, 100)[:10], transformers_engine.uniforms(5, 10))
    first, second = transformers_engine.uniforms(5, 10_000), transformers_engine.uniforms(6, 10_000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert abs(first.mean() - 0.5) < 0.01 and first.min() >= 0 and first.max() < 1


@pytest.mark.parametrize(("ends", "max_tokens"), [([1, *drawing.ENDS], 12), ([1], 90)])
def test_greedy_equals_a_simple_loop(model_folder, ends, max_tokens):
    """The loop takes the arg max at every position, one prompt at a time, without cache, padding or processors.

    90 tokens do not fit into the first buffers of keys and values, which must grow.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    settings = drawing.settings(temperature=0.0, max_tokens=max_tokens)
    requests = drawing.requests(model_folder, 1)[:4]
    assert max_tokens == 12 or max_tokens > max(len(r.prompt) for r in requests)
    drawn = drawing.by_question(
        transformers_engine.transformers_engine(model_folder, settings, ends, CONTEXT)(requests)
    )
    for request in requests:
        expected, ids = [], list(request.prompt)
        while len(expected) < max_tokens and (not expected or expected[-1] not in ends):
            with torch.no_grad():
                expected.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            ids.append(expected[-1])
        assert drawn[request.question].tokens == [expected]


def test_a_response_does_not_depend_on_its_batch(model_folder):
    """Tokens are equal in batches of 3 and of 64 rows, with requests in another order, and if only samples 2 to 4 are
    requested."""
    requests = drawing.requests(model_folder, 5)
    large = drawing.by_question(engine(model_folder, batch=64)(requests))
    small = drawing.by_question(engine(model_folder, batch=3)(reversed(requests)))
    later = drawing.by_question(engine(model_folder, batch=7)([r._replace(first=2, count=3) for r in requests]))
    assert large == small and len(large) == 12
    assert all(later[q].tokens == large[q].tokens[2:] and later[q].first == 2 for q in large)
    assert len({tuple(t) for drawn in large.values() for t in drawn.tokens}) > 50  # most responses differ


def check_contract(drawn, requests, ends, context, max_tokens):
    """Both finish reasons occur. Responses with `stop` end with their only end token; those with `length` have none and
    have the largest length."""
    seen = set()
    for request in requests:
        responses = drawn[request.question]
        assert len(responses.tokens) == len(responses.text) == len(responses.finish_reason) == request.count
        budget = min(max_tokens, context - len(request.prompt))
        for tokens, reason in zip(responses.tokens, responses.finish_reason, strict=True):
            end_tokens = [token for token in tokens if token in ends]
            assert end_tokens == (tokens[-1:] if reason == "stop" else [])
            assert 0 < len(tokens) <= budget and (reason == "stop" or len(tokens) == budget)
            seen.add(reason)
    assert seen == {"stop", "length"}


def test_token_contract(model_folder):
    """The context limit leaves fewer than max_tokens positions to longer prompts: rows have different budgets."""
    requests = drawing.requests(model_folder, 6)
    lengths = sorted(len(r.prompt) for r in requests)
    context = lengths[-1] + 4
    assert lengths[0] + 12 < context
    drawn = drawing.by_question(engine(model_folder, max_model_len=context)(requests))
    check_contract(drawn, requests, drawing.ends(model_folder), context, 12)


def test_text_is_decoded_from_the_tokens_without_the_end_token(model_folder):
    tokenizer = models.load_tokenizer(model_folder)
    ends = drawing.ends(model_folder)
    for drawn in engine(model_folder)(drawing.requests(model_folder, 2)):
        for tokens, text in zip(drawn.tokens, drawn.text, strict=True):
            kept = [t for t in tokens if t not in ends and t not in tokenizer.all_special_ids]
            assert text == tokenizer.decode(kept)


def check_stop_texts(plain, stopped, stop):
    """Check that stopped responses equal those without stop texts up to the token that completes the stop text, and
    that their texts end before it."""
    count = 0
    for question, whole in plain.items():
        part = stopped[question]
        for k, text in enumerate(whole.text):
            positions = [text.find(s) for s in stop if s in text]
            assert part.tokens[k] == whole.tokens[k][: len(part.tokens[k])]
            assert part.text[k] == (text[: min(positions)] if positions else text)
            assert part.finish_reason[k] == ("stop" if positions else whole.finish_reason[k])
            count += bool(positions)
    assert count >= 3


STOP = ["e", " t", "ing"]


def test_stop_texts(model_folder):
    requests = drawing.requests(model_folder, 4)
    plain = drawing.by_question(engine(model_folder)(requests))
    stopped = drawing.by_question(engine(model_folder, stop=STOP)(requests))
    check_stop_texts(plain, stopped, STOP)


def test_the_generation_defaults_of_the_model_are_not_used(model_folder, tmp_path):
    """A model whose generation_config.json sets repetition_penalty and top_k, as Qwen's do, draws the same."""
    for path in model_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "generation_config.json").unlink()
    defaults = json.loads((model_folder / "generation_config.json").read_text())
    defaults |= {"repetition_penalty": 5.0, "top_k": 1, "do_sample": True, "temperature": 0.1}
    (tmp_path / "generation_config.json").write_text(json.dumps(defaults))
    requests = drawing.requests(model_folder, 2)
    assert list(engine(tmp_path)(requests)) == list(engine(model_folder)(requests))


def test_vllm_that_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert engines.resolve("auto") == "transformers"
    with pytest.raises(ValueError, match="vllm is not installed.*sampling.engine=transformers"):
        engines.resolve("vllm")


def test_broken_weights_are_an_error(model_folder, tmp_path):
    for path in model_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot load the weights .*model.safetensors"):
        engine(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(ValueError, match="cannot load the weights .*header"):
        engine(tmp_path)


def test_context_limit(model_folder):
    assert context_limit(model_folder, drawing.settings()) == 1024
    assert context_limit(model_folder, drawing.settings(max_model_len=100)) == 100
    with pytest.raises(ValueError, match="max_model_len: found 2000, expected at most the model's limit of 1024"):
        context_limit(model_folder, drawing.settings(max_model_len=2000))


@pytest.fixture(scope="module")
def vllm_run(model_folder, tmp_path_factory):
    """(process, folder that it writes to) of vllm_cases.py: one for all tests, as its start takes half a minute."""
    if engines.importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    out = tmp_path_factory.mktemp("vllm")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (out / "log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.vllm_cases", str(model_folder), str(out)],
            cwd=Path(__file__).parent.parent, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    yield child, out
    child.kill()
    child.wait()


def vllm_case(vllm_run, name, wait=300):
    child, out = vllm_run
    path, end = out / f"{name}.json", time.monotonic() + wait
    while not path.exists():
        assert child.poll() is None and time.monotonic() < end, (out / "log").read_text()[-3000:]
        time.sleep(0.2)
    return {question: Drawn(*row) for question, row in json.loads(path.read_text()).items()}


def test_vllm_greedy_equals_transformers(vllm_run, model_folder):
    expected = drawing.by_question(engine(model_folder, temperature=0.0)(drawing.requests(model_folder, 1)))
    assert vllm_case(vllm_run, "greedy") == expected and len(expected) == 12


def test_vllm_draws_later_samples_alone(vllm_run):
    """Sample k of a request has the seed `seed + k`: samples 2 to 5 are the same alone and with n=6."""
    whole, later = vllm_case(vllm_run, "sampled"), vllm_case(vllm_run, "later")
    assert all(later[q].tokens == whole[q].tokens[2:] and later[q].first == 2 for q in whole)
    assert len({tuple(t) for drawn in whole.values() for t in drawn.tokens}) > 60


def test_vllm_token_contract(vllm_run, model_folder):
    drawn = vllm_case(vllm_run, "sampled")
    check_contract(drawn, drawing.requests(model_folder, 6), drawing.ends(model_folder), CONTEXT, 12)


def test_vllm_stop_texts(vllm_run):
    check_stop_texts(vllm_case(vllm_run, "sampled"), vllm_case(vllm_run, "stopped"), STOP)


def test_vllm_engine_process_ends_when_the_sampler_is_killed(vllm_run):
    """Otherwise vLLM's engine process would keep running, and keep its memory, after kill -9 of the sampler."""
    child, out = vllm_run
    vllm_case(vllm_run, "stopped")
    lines = out / "endless.jsonl"
    end = time.monotonic() + 100
    while not lines.exists() or not lines.read_text():
        assert child.poll() is None and time.monotonic() < end, (out / "log").read_text()[-3000:]
        time.sleep(0.1)
    pids = json.loads((out / "pids").read_text())
    assert pids and all(alive(pid) for pid in pids)
    child.send_signal(signal.SIGKILL)
    child.wait()
    end = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, f"engine processes {pids} are still running"
        time.sleep(0.1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
