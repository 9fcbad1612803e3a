"""Values of expressions at fixed points, and the child processes that compute them."""

import operator
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from east.grading import workers
from east.grading.mathematics.canonical import Key, answer_key
from east.grading.mathematics.numeric import Request, _coordinate, evaluate
from east.grading.mathematics.reading import read
from east.grading.mathematics.tree import Tree
from east.grading.value_cache import ValueCache
from east.grading.workers import Workers


@pytest.fixture(scope="module")
def values() -> Iterator[ValueCache]:
    values = ValueCache(workers=1)
    values.start()
    yield values
    values.close()


def full_key(answer: str, values: ValueCache) -> Key:
    requests: set[Request] = set()
    answer_key(read(answer), lambda mode, tree: requests.add((mode, tree)))
    values.compute([frozenset(requests)])
    return answer_key(read(answer), values.lookup)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\sqrt{5+2\sqrt 6}", r"\sqrt2+\sqrt3"),
        (r"\sqrt{25+0\pi}", "5"),
        (r"\cos\frac{\pi}{3}", "1/2"),
        (r"\sin 30^\circ", "0.5"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"\tan^2 y+1", r"\sec^2 y"),
        (r"\frac{x^2-1}{x-1}", "x+1"),
        ("(x+y)^2", "x^2+2xy+y^2"),
        (r"\sqrt{x^2}", "|x|"),
        (r"3-\sqrt{x-3}", r"-\sqrt{x-3}+3"),
        (r"\log_2 10", r"\frac{\ln 10}{\ln 2}"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
        ("-5i+6", "6-5i"),
        (r"e^{i\pi}", "-1"),
        (r"(1+i)^2", "2i"),
        ("y=2x+3", "2y-4x=6"),
        ("x^2+y^2<4", "4>y^2+x^2"),
        ("3^{20000}", r"9^{10000}"),
    ],
)
def test_equal_expressions_have_equal_keys(one: str, other: str, values: ValueCache) -> None:
    assert full_key(one, values) == full_key(other, values)
    assert full_key(one, values)[0] != "expression"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{2}", "1.41421356237309504880168872420969807856967187537694807317667973799"),
        (r"\pi", r"\frac{355}{113}"),
        ("|x|", "x"),
        (r"\sqrt{x^2}", "x"),
        (r"\ln 5", r"\log_{10} 5"),
        ("5k", "5m"),
        (r"\frac{1}{2004!}", r"\frac{1}{2003!}"),
        ("2^{20000}+1", "2^{20000}"),
        (r"2^{200}+\pi", "2^{200}"),
        ("x^{100000}+1", "x^{99999}+1"),
        ("y=2x+3", "y=2x-3"),
        ("x^2+y^2<4", "x^2+y^2>4"),
        ("1+i", "1-i"),
    ],
)
def test_different_expressions_have_different_keys(one: str, other: str, values: ValueCache) -> None:
    """There is no tolerance: neither 65 correct digits of a root nor one part in 10^60 make two answers equal."""
    assert full_key(one, values) != full_key(other, values)


polynomials = st.lists(st.integers(-9, 9), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(polynomials, polynomials)
def test_polynomials_are_equal_exactly_when_their_coefficients_are(one: list[int], other: list[int]) -> None:
    """`evaluate` is called in this process: it is a pure function."""

    def evaluated(coefficients: list[int]) -> Key:
        text = "+".join(f"({c}) x^{{{n}}}" for n, c in enumerate(coefficients)) + "+0x"
        return answer_key(read(text), lambda mode, tree: evaluate((mode, tree)))

    def trimmed(coefficients: list[int]) -> list[int]:
        while coefficients and not coefficients[-1]:
            coefficients = coefficients[:-1]
        return coefficients

    assert (evaluated(one) == evaluated(other)) == (trimmed(one) == trimmed(other))


leaves = st.one_of(
    st.integers(1, 9).map(lambda n: ("num", Fraction(n))),
    st.sampled_from([("const", "pi"), ("const", "e"), ("sym", "x"), ("sym", "y")]),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["add", "mul", "div"]), inner, inner),
        st.tuples(st.just("pow"), inner, st.sampled_from([("num", Fraction(2)), ("num", Fraction(1, 2))])),
        st.tuples(st.just("fn"), st.sampled_from(["sin", "cos", "exp", "arctan", "sinh", "arcsinh", "sech"]), inner),
    ),
    max_leaves=6,
)


def by_mpmath(tree: Tree, at: dict[str, Fraction]) -> Any:
    """The value of a tree, by another library."""
    head, parts = tree[0], tree[2 if tree[0] == "fn" else 1 :]
    if head == "num":
        return mpmath.mpf(tree[1].numerator) / tree[1].denominator
    if head == "const":
        return +mpmath.pi if tree[1] == "pi" else mpmath.exp(1)
    if head == "sym":
        return mpmath.mpf(at[tree[1]].numerator) / at[tree[1]].denominator
    values = [by_mpmath(part, at) for part in parts]
    if head == "pow" and mpmath.re(values[0]) < 0 and parts[1] == ("num", Fraction(1, 2)):
        raise ValueError("even root of a negative value")
    if head in ("add", "mul", "div", "pow"):
        return {"add": operator.add, "mul": operator.mul, "div": operator.truediv, "pow": operator.pow}[head](*values)
    return {"arctan": mpmath.atan, "arcsinh": mpmath.asinh}.get(tree[1], getattr(mpmath, tree[1], None))(values[0])


@given(trees, st.integers(0, 3))
def test_values_are_those_of_another_library(tree: Tree, point: int) -> None:
    at = {name: _coordinate(name, point) for name in "xy"}
    key = evaluate(("value", ("add", tree, ("mul", ("num", Fraction(0)), ("sym", "x"), ("sym", "y")))))
    assume(key is not None and key[0] == "function" and key[1][point] is not None)
    assert key is not None
    with mpmath.workdps(120):
        try:
            expected = by_mpmath(tree, at)
        except ValueError:
            reject()
        assert abs(mpmath.mpf(key[1][point][0]) - expected) <= abs(expected) * mpmath.mpf(10) ** -38


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (r"\sech 1", "0.6480542736638853995749773532261503231085"),
        (r"\operatorname{arsinh} 2", "1.443635475178810342493276740273105269406"),
        (r"\operatorname{arccosh} 3", "1.762747174039086050465218649959584618056"),
        (r"\coth 1", "1.313035285499331303636161246930847832912"),
    ],
)
def test_hyperbolic_functions(expression: str, value: str, values: ValueCache) -> None:
    """Expected digits: cosh, sinh and logarithms in 60-digit arithmetic (mpmath)."""
    assert full_key(expression, values)[1] == value


@pytest.mark.parametrize(
    "expression", [r"2^{1/2^{1000}}", r"\cosh(3^{-900})", r"1+\pi\cdot 10^{-300}", r"\sqrt[10^{90}]{2}"]
)
def test_a_value_that_is_too_close_to_a_number_is_no_number(expression: str, values: ValueCache) -> None:
    assert full_key(expression, values)[0] in ("expression", "constant")


def test_hostile_calls_do_not_change_other_calls() -> None:
    """One call exceeds its processor time; the calls before and after it return their values."""
    with Workers("tests.hostile:act", count=2, timeout_s=0.5, memory_mb=512) as pool:
        pool.start()
        outcomes = pool.map(["echo", "spin", "echo", "memory", "echo", "exit", "echo", "raise", "print", "echo"])
    statuses = [outcome.status for outcome in outcomes]
    assert statuses[1] == "timeout" and statuses[3] == "memory" and statuses[5] == "died" and statuses[7] == "failed"
    assert [outcomes[i].value for i in (0, 2, 4, 6, 8, 9)] == ["echo"] * 4 + ["print", "echo"]


def test_a_call_that_only_waits_is_no_timeout() -> None:
    """Limits are on processor time: two seconds of sleep under a limit of half a second."""
    with Workers("tests.hostile:act", count=1, timeout_s=0.5) as pool:
        assert pool.map(["sleep", "echo"])[1].status == "ok"


def test_a_pool_without_any_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENT_SECONDS", 1)
    with Workers("tests.hostile:act", count=1) as pool, pytest.raises(RuntimeError, match="has answered for 1 s"):
        pool.map(["sleep"])


def test_a_stopped_child_process_loses_no_call() -> None:
    """Stopped for longer than its limit, a child process goes on with its call."""
    with Workers("tests.hostile:act", count=1, timeout_s=0.5) as pool:
        pool.start()
        child = pool.idle[0].process.pid
        os.kill(child, signal.SIGSTOP)
        threading.Timer(1.5, os.kill, (child, signal.SIGCONT)).start()
        assert [outcome.status for outcome in pool.map(["echo"] * 3)] == ["ok"] * 3


def test_outcomes_do_not_depend_on_load() -> None:
    """Calls of a third of their processor time, while every core has three other processes to run."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        with Workers("tests.hostile:work", count=2, timeout_s=0.9) as pool:
            start = time.perf_counter()
            outcomes = pool.map([0.3] * 5)
            waited = time.perf_counter() - start
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [outcome.status for outcome in outcomes] == ["ok"] * 5
    assert waited > 5 * 0.3, "two processes on a loaded machine take longer than one on an idle one"


def test_close_ends_every_child_process() -> None:
    with Workers("tests.hostile:act", count=2, timeout_s=0.5) as pool:
        pool.start()
        children = [child.process.pid for child in pool.idle]
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_child_process_whose_parent_was_killed_ends_itself() -> None:
    """Its timer ends a call that never returns; nobody has to wait for it."""
    code = "from east.grading.workers import serve; serve('tests.hostile:act', 0.2, 512)"
    arguments = pickle.dumps(["spin"])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        input=struct.pack("<Q", len(arguments)) + arguments,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGPROF


def test_a_missing_function_is_named() -> None:
    with (
        Workers("tests.hostile:missing", count=1) as pool,
        pytest.raises(RuntimeError, match="tests.hostile:missing"),
    ):
        pool.start()


def test_values_are_cached_until_the_cache_is_too_large(values: ValueCache) -> None:
    full_key(r"\sqrt{11}", values)
    computed = values.counts["ok"]
    full_key(r"\sqrt{11}", values)
    assert values.counts["ok"] == computed
    values.size = 10**9
    values.trim()
    assert not values.known
    assert full_key(r"\sqrt{11}", values)[0] == "constant"
