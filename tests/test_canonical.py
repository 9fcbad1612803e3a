"""Canonical keys: equal exactly for equal values. Hostile text is parsed in bounded time."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from east.grading.mathematics.canonical import Key, answer_key
from east.grading.mathematics.lexer import Unreadable
from east.grading.mathematics.parser import MAX_TREE_DEPTH, parse
from east.grading.mathematics.rational import exact
from east.grading.mathematics.reading import read
from east.grading.mathematics.spelling import clean, plain
from east.grading.mathematics.tree import depth, order


def key(answer: str) -> Key:
    """The key without symbolic values."""
    return answer_key(read(answer), lambda mode, tree: None)


def number(value: str) -> Key:
    return ("number", Fraction(value))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("007", "7"),
        ("-.5", "-1/2"),
        ("1,234.50", "2469/2"),
        (r"32,\! 349", "32349"),
        ("10{,}000", "10000"),
        (r"70\,000", "70000"),
        ("118 000", "118000"),
        (r"\dfrac34", "3/4"),
        (r"-\frac{1}{-2}", "1/2"),
        (r"3\frac{1}{2}", "7/2"),
        ("3 1/2", "7/2"),
        (r"-3\frac12", "-7/2"),
        (r"3 \cdot \frac{1}{2}", "3/2"),
        (r"0.\overline{3}", "1/3"),
        (r"0.1\overline{6}", "1/6"),
        ("3.54e-07", "354/1000000000"),
        (r"3.54 \times 10^{-7}", "354/1000000000"),
        ("2^3^2", "512"),
        ("-2^2", "-4"),
        (r"\sqrt{\frac{9}{4}}", "3/2"),
        (r"\sqrt[3]{-8}", "-2"),
        ("8^{2/3}", "4"),
        (r"\binom{5}{2}", "10"),
        ("5!", "120"),
        (r"\left|-3\right|", "3"),
        (r"\lfloor 3.7 \rfloor", "3"),
        ("$1,200", "1200"),
        (r"12\text{ cm}^2", "12"),
        ("3 million dollars", "3000000"),
        ("seven", "7"),
        (r"\text{13}", "13"),
        ("x = 5 + 5 + 1 = 11", "11"),
        ("½", "1/2"),
        ("６", "6"),
        ("−5", "-5"),
        ("220 + 90 + 60", "370"),
        ("The mechanic earned $40 less on Friday.", "40"),
    ],
)
def test_exact_values(answer: str, value: str) -> None:
    assert key(answer) == number(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(1, 2)", "[1, 2]"),
        ("(1, 2)", "(2, 1)"),
        ("(1,000)", "1,000"),
        ("19, 22", "1922"),
        ("x < 1", r"x \le 1"),
        ("1011_2", "1011_3"),
        ("red", "der"),
        ("2:3", "3:2"),
        (r"\pm 3", "3"),
        ("4:30 am", "4:30 pm"),
        ("9999", "9999.857142857143"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("a_{n+1}", "a_n + 1"),
    ],
)
def test_different_values_have_different_keys(one: str, other: str) -> None:
    assert key(one) != key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1, 2, 3", r"\{3, 2, 1\}"),
        ("2 and 5", r"5 \text{ or } 2"),
        (r"\pm 3", "-3, 3"),
        (r"1 \pm \frac12", "0.5, 1.5"),
        (r"(-\infty, 2]", "x <= 2"),
        ("-x > -1", "x < 1"),
        (r"x \in [0, \infty)", r"0 \le x"),
        ("x < 1 or x > 2", r"(2,\infty) \cup (-\infty, 1)"),
        (r"\mathbb{R}", "(-oo, oo)"),
        (r"\begin{bmatrix} 1 & 0 \\ 0 & 1 \\ \end{bmatrix}", r"\begin{pmatrix}1&0\\0&1\end{pmatrix}"),
        (r"\frac12\begin{pmatrix}2\\4\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("x=2, y=3", "y=3, x=2"),
        (r"\text{(C)}", "C"),
        ("An ellipse.", r"\text{ellipse}"),
        (r"\text{4:30 p.m.}", "4:30 PM"),
        (r"\overline{AB}", r"\text{AB}"),
    ],
)
def test_equal_values_have_equal_keys(one: str, other: str) -> None:
    assert key(one) == key(other)


rationals = st.fractions(min_value=-1000, max_value=1000, max_denominator=50)


@given(rationals)
def test_every_spelling_of_a_rational_has_its_key(q: Fraction) -> None:
    p, r = q.numerator, q.denominator
    sign = "-" if q < 0 else ""
    spellings = [
        f"{p}/{r}", f"\\frac{{{p}}}{{{r}}}",
        f"{sign}\\dfrac{{{abs(p)}}}{{{r}}}", f"\\frac{{{3 * p}}}{{{3 * r}}}",
        f"$\\frac{{{p}}}{{{r}}}$.", f"x = {p}/{r}", f"{p}/{r} \\text{{ units}}",
    ]  # fmt: skip
    assert {key(spelling) for spelling in spellings} == {("number", q)}


@given(st.lists(rationals, min_size=2, max_size=5), st.randoms())
def test_order_matters_in_tuples_and_not_in_lists(items: list[Fraction], random_: object) -> None:
    shuffled = items[:]
    random_.shuffle(shuffled)  # type: ignore[attr-defined]
    assert key(", ".join(map(str, items))) == key(", ".join(map(str, shuffled)))
    as_tuples = [key(f"({', '.join(map(str, part))})") for part in (items, shuffled)]
    assert (as_tuples[0] == as_tuples[1]) == (items == shuffled)


@settings(max_examples=300)
@given(st.text(alphabet="0123456789xy+-*/^!()[]{},.=<>|%_ abcdefg", min_size=1, max_size=60))
def test_delimiters_around_any_text_do_not_change_its_key(text: str) -> None:
    """Parsing never raises, and $...$ around an answer does not change its key."""
    own = key(text)
    assert hash(own) == hash(key(f"  {text}\n")) and isinstance(order(own), str)
    if clean(text):
        assert key(f"${clean(text)}$") == key(clean(text))


HOSTILE = {
    "tower": "9^9^9^9",
    "nested tower": r"9^{9^{9^{9^{9^{9}}}}}",
    "factorial": "99999999!",
    "factorials": "((((9!)!)!)!)!",
    "many factorials": "3" + "!" * 1500,
    "binomial": r"\binom{10^9}{5\cdot 10^8}",
    "round brackets": "(" * 900 + "3" + ")" * 900,
    "braces": "{" * 5000,
    "fractions": r"\frac{" * 200 + "1" + "}{2}" * 200,
    "roots": r"\sqrt{" * 200 + "3" + "}" * 200,
    "powers": "x^{" * 300 + "2" + "}" * 300,
    "sines": r"\sin(" * 300 + "x" + ")" * 300,
    "minus": "-" * 2000 + "4",
    "divisions": "1" + "/7" * 1000,
    "sum": "x" + "+x" * 1000,
    "signs": "1" + r"\pm 1" * 400,
    "bars": "|" * 2000,
    "numbers": " ".join(["3"] * 100_000),
    "commas": "1," * 100_000,
    "digits": "7" * 5000,
    "decimals": "0." + "3" * 10_000,
    "exponent": "1e999999999",
    "products of large numbers": r"\frac{3^{4000}}{2^{6000}}+" * 100 + "1",
    "row": r"\begin{pmatrix}" + "1&" * 900 + r"1\end{pmatrix}",
    "lambda": "lambda: 3",
    "exec": "exec(\"open('/tmp/x','w')\")",
    "import": "__import__('os').system('touch /tmp/x')",
    "attributes": "().__class__.__bases__[0].__subclasses__()",
    "surrogate": "\ud8003",
    "combining": "3" + "\u0301" * 2000,
    "zero width": "\u200b" * 1000,
    "control": "\x00\x01",
    "backslashes": "\\" * 2001,
    "subscripts": "x_{" * 300 + "1" + "}" * 300,
    "letters": "a" * 2000,
    "words": "ab " * 700,
    "megabyte": "x+1-" * 500_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_parsed_in_bounded_time(text: str) -> None:
    start = time.process_time()
    parsed = key(text)
    assert time.process_time() - start < 1
    assert parsed != number("3")


def test_the_depth_of_a_tree_is_bounded() -> None:
    assert depth(parse("1" + "/7" * 50).tree) <= MAX_TREE_DEPTH
    with pytest.raises(Unreadable, match="deeper"):
        parse("1" + "/7" * 500)
    with pytest.raises(Unreadable, match="nested deeper"):
        parse("(" * 60 + "1" + ")" * 60)


def test_exact_arithmetic_is_bounded() -> None:
    """2^2000 has 2,001 bits, 2^1999 has 2,000."""
    assert exact(parse("2^{1999}").tree) == 2**1999
    assert exact(parse("2^{2000}").tree) is None
    assert exact(parse("2^{2000}").tree, max_bits=2001) == 2**2000


def test_text_beyond_the_bounds_is_distinguished_from_text_that_is_no_mathematics() -> None:
    assert read("(" * 60 + "1" + ")" * 60).out_of_bounds and read("7" * 500).out_of_bounds
    assert not read("no solution").out_of_bounds and not read("5 $$ )").out_of_bounds


@pytest.mark.parametrize(("gold", "answer"), [("2xy", "2"), ("2ab", "2"), ("3 xyz", "3"), ("5k", "5"), ("7m", "7")])
def test_letters_after_a_number_are_symbols_unless_they_are_units(gold: str, answer: str) -> None:
    assert key(gold) != key(answer)
    assert key(f"{answer} cm") == key(f"{answer}cm") == key(f"{answer} apples") == key(answer)


def test_letter_case_matters_in_formulas_and_not_in_words() -> None:
    assert key("White") == key("white")
    assert plain("The Answer") == "answer"
    assert key("x") != key("X")
    assert key("2ab") != key("2AB")
