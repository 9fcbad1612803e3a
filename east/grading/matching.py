"""Does an answer match the gold answer? By equal keys, or by a convention of `options.Grading`.

Two predicted answers are compared by their keys alone (`canonical`): a convention such as "x % may mean x or x/100" is
not transitive, so it can label answers but not cluster them.
"""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext

from east.grading.mathematics import matrices, qualifiers
from east.grading.mathematics.answer import Reading
from east.grading.mathematics.canonical import Key, Lookup, answer_key, tree_key
from east.grading.mathematics.intervals import NOTHING
from east.grading.options import Grading


def match(gold: Reading, answer: Reading, lookup: Lookup, options: Grading) -> str | None:
    """Why the answer matches the gold answer; None if it does not. Every gold answer matches itself."""
    if gold.plain == answer.plain and gold.plain:
        return "same text"
    for one in _readings(gold):
        for other in (*_readings(answer), *answer.others):
            if reason := _match(one, other, lookup, options):
                return reason
    return None


def _readings(reading: Reading) -> tuple[Reading, ...]:
    """5 m as a product and as a length."""
    return (reading,) if reading.measure is None else (reading, reading.measure)


def _match(gold: Reading, answer: Reading, lookup: Lookup, options: Grading) -> str | None:
    if gold.tree is None or answer.tree is None:
        return None
    if options.base == "optional" and (reason := _without_base(gold, answer)):
        return reason
    if gold.relation and answer.relation and answer_key(gold, lookup) == answer_key(answer, lookup):
        return "same value"  # x = y and y = x
    if _contradict(gold, answer, options):
        return None
    if options.unevaluated == "different" and gold.evaluated and not answer.evaluated:
        return None
    if reason := _rescaled(gold, answer, lookup, options):
        return reason
    if _needs_rescaling(gold, answer, options):
        return None
    if len(gold.names) > 1 and len(answer.names) > 1:
        return _same_named(answer_key(gold, lookup), answer_key(answer, lookup), answer, options)
    keys = _keys(_as_matrix(answer, gold), lookup, options)
    for gold_key in _keys(_as_matrix(gold, answer), lookup, options):
        for key in keys:
            if "rel" in (gold.tree[0], answer.tree[0]) and "in order" in (gold_key[0], key[0]):
                continue  # 2 < x < 5 is no pair (2, 5)
            if reason := _same(gold_key, key, answer, options) or _set_of_one(gold_key, key, answer, options):
                return reason
    if gold.decimal is not None:
        return _same_rounded(tree_key(answer.tree, lookup), tree_key(gold.tree, lookup), gold, options)
    return None


def _as_matrix(reading: Reading, other: Reading) -> Reading:
    """6I and 0 as matrices of the other's size, if the other is a matrix."""
    assert reading.tree is not None and other.tree is not None
    if other.tree[0] != "matrix" or reading.tree[0] == "matrix":
        return reading
    matrix = matrices.identity_or_zero(reading.tree, rows=len(other.tree) - 1, columns=len(other.tree[1]))
    return reading if matrix is None else reading._replace(tree=matrix)


def _contradict(gold: Reading, answer: Reading, options: Grading) -> bool:
    """Whether units, names or qualifiers differ: metres and feet, x = 5 and y = 5, a.m. and p.m."""
    if qualifiers.contradict(gold.qualifiers, answer.qualifiers):
        return True
    if len(gold.names) == len(answer.names) and set(gold.names) != set(answer.names):
        return not _graph_and_function(gold, answer)
    if options.units == "ignored" or not (gold.units and answer.units):
        return False
    return gold.units != answer.units and gold.units | answer.units != {"dollar", "cent"}


def _graph_and_function(gold: Reading, answer: Reading) -> bool:
    """Whether one names y and the other f(x): y = 2x + 3 and f(x) = 2x + 3, 1 < y < 2 and 1 < f(x) < 2."""
    names = {*gold.names, *answer.names}
    variable = all(reading.relation or reading.tree and reading.tree[0] == "rel" for reading in (gold, answer))
    return variable and len(names) == 2 and "y" in names and any(name.endswith(")") for name in names)


def _keys(reading: Reading, lookup: Lookup, options: Grading) -> list[Key]:
    """All keys by which an answer is compared: y = 2x + 3 as an equation and as 2x + 3."""
    assert reading.tree is not None
    ordered = options.list_order == "kept"
    keys = [answer_key(reading, lookup, ordered=ordered)]
    if len(reading.names) > 1:  # x=3, y=4 as the pair (3, 4), for answers without names
        keys.append(("seq", "(", ")", *(tree_key(item, lookup) for item in reading.tree[2:])))
    else:
        keys.append(tree_key(reading.tree, lookup, ordered=ordered))
        alternatives = keys[-1][0] == "or"
        if reading.tree[0] == "list" and not alternatives and not any(item[0] == "rel" for item in reading.tree[2:]):
            keys.append(("in order", *(tree_key(item, lookup) for item in reading.tree[2:])))
    return list(dict.fromkeys(keys))


def _same(gold: Key, answer: Key, reading: Reading, options: Grading) -> str | None:
    """Why two keys count as equal; None if they do not. reading: the answer's."""
    if gold == answer:
        return "same value"
    kinds = gold[0], answer[0]
    if kinds == ("function", "function"):
        return "same value where both are defined" if _agree(gold[1], answer[1]) else None
    if kinds in (("seq", "in order"), ("in order", "seq"), ("seq", "seq")):
        return _same_sequence(gold, answer, reading, options)
    if kinds in (("matrix", "seq"), ("seq", "matrix")):
        return _same_vector(gold, answer, reading, options)
    ordered = options.list_order == "kept"
    if kinds == ("list", "list") and len(gold) == len(answer) and not ordered:
        unmatched = list(answer[1:])
        for gold_item in gold[1:]:
            equal = next((item for item in unmatched if _same(gold_item, item, reading, options)), None)
            if equal is None:
                return None
            unmatched.remove(equal)
        return "same items"
    alike = kinds[0] == kinds[1] in ("matrix", "row", "union", "ratio", "in order", "list")
    if alike and len(gold) == len(answer):
        every = all(_same(a, b, reading, options) for a, b in zip(gold[1:], answer[1:], strict=True))
        return "same parts" if every else None
    return _same_rounded(gold, answer, reading, options)


def _set_of_one(gold: Key, answer: Key, reading: Reading, options: Grading) -> str | None:
    """5 matches the whole answer {5}, but {1, {2}} does not match {1, 2}."""
    if (gold[0] == "list") == (answer[0] == "list") or len(gold if gold[0] == "list" else answer) != 2:
        return None
    one, other = (gold[1], answer) if gold[0] == "list" else (gold, answer[1])
    if NOTHING in (one, other):
        return None
    return "set of one" if _same(one, other, reading, options) else None


def _same_vector(gold: Key, answer: Key, reading: Reading, options: Grading) -> str | None:
    """A column matches the tuple (1, 2)."""
    column, vector = (gold, answer) if gold[0] == "matrix" else (answer, gold)
    if any(len(row) != 2 for row in column[1:]) or vector[1:3] != ("(", ")") or len(column[1:]) != len(vector[3:]):
        return None
    entries = [row[1] for row in column[1:]]
    pairs = zip(vector[3:], entries, strict=True) if gold is vector else zip(entries, vector[3:], strict=True)
    return "same parts" if all(_same(a, b, reading, options) for a, b in pairs) else None


def _same_named(gold: Key, answer: Key, reading: Reading, options: Grading) -> str | None:
    """x = 1, y = 2 matches y = 2, x = 1, but not y = 1, x = 2, whose values have the same order."""
    if len(gold) != len(answer) or gold[0] != answer[0]:
        return None
    pairs = zip(gold[1:], answer[1:], strict=True)
    every = all(a[0] == b[0] and _same(a[1], b[1], reading, options) for a, b in pairs)
    return "same values" if every else None


def _agree(gold: tuple[object, ...], answer: tuple[object, ...]) -> bool:
    """Whether two functions are equal at all points where both have a value, two or more."""
    both = [(a, b) for a, b in zip(gold, answer, strict=False) if a is not None and b is not None]
    return len(both) >= 2 and all(a == b for a, b in both)


def _same_sequence(gold: Key, answer: Key, reading: Reading, options: Grading) -> str | None:
    """(10, 3) matches 10, 3. Brackets may also have another shape if there are too many items for an interval."""
    gold_items, items = (key[3:] if key[0] == "seq" else key[1:] for key in (gold, answer))
    brackets = {key[1:3] for key in (gold, answer) if key[0] == "seq"}
    if len(gold_items) != len(items):
        return None
    same_kind = gold[0] == answer[0] and len(brackets) == 1
    if len(items) == 2 and not (same_kind or gold[:3] == ("seq", "(", ")") and answer[0] == "in order"):
        return None  # [1, 2] may be an interval: only the gold answer (1, 2) matches 1, 2 without brackets
    every = all(_same(a, b, reading, options) for a, b in zip(gold_items, items, strict=True))
    return "same parts" if every else None


def _same_rounded(gold: Key, answer: Key, reading: Reading, options: Grading) -> str | None:
    """Whether a decimal of many digits is the rounded value of the other number. reading: the decimal's."""
    if reading.decimal is None or answer[0] != "number" or options.rounded_digits <= 0:
        return None
    significant = reading.decimal.lstrip("-").replace(".", "").lstrip("0")
    if len(significant) < options.rounded_digits:
        return None
    with localcontext() as context:
        context.prec = 60
        if gold[0] == "number":
            exact = Decimal(gold[1].numerator) / gold[1].denominator
        elif gold[0] == "constant" and gold[2] == "0.0":
            exact = Decimal(gold[1])
        else:
            return None
        context.prec = min(len(significant), 15)  # what a float can hold
        written = +Decimal(reading.decimal)
        for rounding in (ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_DOWN):
            context.rounding = rounding
            if +exact == written and +exact != exact:
                return "rounded decimal"
    return None


def _needs_rescaling(gold: Reading, answer: Reading, options: Grading) -> bool:
    """Whether equal numbers have different values: 10 cents and $10; 25% and 25 under percent="value"."""
    if options.percent == "value" and gold.percent != answer.percent:
        return True
    coins = gold.units & {"dollar", "cent"}, answer.units & {"dollar", "cent"}
    return options.units == "compatible" and all(coins) and coins[0] != coins[1]


def _rescaled(gold: Reading, answer: Reading, lookup: Lookup, options: Grading) -> str | None:
    """25% matches 0.25, and 250 cents match $2.50."""
    assert gold.tree is not None and answer.tree is not None
    gold_key, key = tree_key(gold.tree, lookup), tree_key(answer.tree, lookup)
    if gold_key[0] != "number" or key[0] != "number":
        return None
    if gold.percent != answer.percent and options.percent in ("either", "value"):
        percent, other = (gold_key[1], key[1]) if gold.percent else (key[1], gold_key[1])
        if percent / 100 == other:
            return "percent"
    if options.units == "compatible" and _needs_rescaling(gold, answer, options):
        cents, dollars = (gold_key[1], key[1]) if "cent" in gold.units else (key[1], gold_key[1])
        if cents / 100 == dollars:
            return "cents"
    return None


def _without_base(gold: Reading, answer: Reading) -> str | None:
    """152A matches the gold answer 152A_11, and 26_10 matches 26."""
    for based, bare in ((gold, answer), (answer, gold)):
        assert based.tree is not None and bare.tree is not None
        if based is answer and based.tree[2:] != ("10",):
            continue
        digits = bare.plain.upper().lstrip("0")
        if based.tree[0] == "base" and bare.tree[0] != "base" and digits == based.tree[1]:
            return "base left out"
    return None
