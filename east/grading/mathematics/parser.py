"""The grammar of answers: from cleaned text to a tree, by recursive descent of bounded depth; nothing is evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import NamedTuple

from east.grading.mathematics import lexer as words
from east.grading.mathematics import matrices, units
from east.grading.mathematics.lexer import OutOfBounds, Token, Unreadable, number, tokenize
from east.grading.mathematics.tree import Tree, depth, is_larger, spell, substituted, symbols

MAX_DEPTH = 40  # nested brackets, exponents and signs
MAX_TERMS = 100  # of a sum that is written out
MAX_SUM_NODES = 5_000
MAX_TREE_DEPTH = 120  # levels of a tree: functions of trees are recursive


class Parsed(NamedTuple):
    tree: Tree
    units: tuple[str, ...]  # as written
    percent: bool  # is there a percent sign?


def parse(text: str) -> Parsed:
    """The tree of a cleaned answer. Raises Unreadable outside the grammar, OutOfBounds beyond its bounds."""
    parser = _Parser(units.group(tokenize(text)))
    tree = parser.items()
    if parser.token.kind != "end":
        raise Unreadable(f"expected the end of the answer, found {parser.token.value!r}")
    if depth(tree) > MAX_TREE_DEPTH:
        raise OutOfBounds(f"a tree deeper than {MAX_TREE_DEPTH}")
    return Parsed(tree, tuple(parser.units), parser.percent)


def _is_vector(tree: Tree) -> bool:
    return tree[0] == "sym" and str(tree[1]).startswith(("\\vec", "\\mathbb"))


def _join(head: str, parts: list[Tree]) -> Tree:
    return parts[0] if len(parts) == 1 else (head, *parts)


def _members(tree: Tree) -> tuple[Tree, ...]:
    """The items of a list, or the one item."""
    return tree[2:] if tree[0] == "list" else (tree,)


class _Parser:
    """Recursive descent. A method parses what its name says, and leaves `token` at the token after it.

    From the loosest to the tightest: items (with commas, "and", "or"), relation, union, ratio, sum, product, signed,
    power, primary.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = [*tokens, Token("end", "", False)]
        self.position = 0
        self.depth = 0
        self.bars = 0  # 1 inside |...|, where | closes
        self.degrees = False  # inside a trigonometric function, where ° is pi/180 and not a unit
        self.units: list[str] = []
        self.percent = False

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def next(self) -> Token:
        token = self.token
        self.position += 1
        return token

    def at(self, *values: str) -> bool:
        return self.token.value in values and self.token.kind in ("op", "cmd", "word")

    def take(self, *values: str) -> bool:
        if self.at(*values):
            self.position += 1
            return True
        return False

    def expect(self, *values: str) -> str:
        if not self.at(*values):
            raise Unreadable(f"expected {' or '.join(values)}, found {self.token.value!r}")
        return self.next().value

    def items(self) -> Tree:
        """One item, or several with separators between them."""
        items, separators = [self.relation()], []
        while separator := self.separator():
            if self.token.kind == "end" or self.at(")", "]", "\\}", "\\end{matrix}"):
                break
            separators.append(separator)
            items.append(self.relation())
        return items[0] if len(items) == 1 else ("list", "".join(sorted(set(separators))), *items)

    def separator(self) -> str:
        separator = ""
        while True:
            if self.take(",", ";"):
                separator = separator or ","
            elif self.token.kind in ("text", "word") and (word := self.connective()) in words.CONNECTIVES:
                separator = word if word in ("and", "or") else (separator or ",")
                self.position += 1
            elif self.take("\\lor", "\\vee"):
                separator = "or"
            elif self.take("\\land", "\\wedge"):
                separator = "and"
            else:
                return separator

    def connective(self) -> str:
        return self.token.value.strip(" ,").lower()

    def relation(self) -> Tree:
        members, operators = [self.union()], []
        while self.token.kind in ("op", "cmd") and self.token.value in words.RELATIONS:
            operators.append(words.RELATIONS[self.next().value])
            members.append(self.union())
        modular = members[-1][:2] in (("fn", "mod"), ("fn", "pmod"))
        if operators == ["=="] and modular:  # x = 3 mod 7: the modulus is that of both sides
            return ("rel", ("==",), members[0], members[1][2], members[1][3])
        return ("rel", tuple(operators), *members) if operators else members[0]

    def union(self) -> Tree:
        pieces = [self.ratio()]
        while self.take("\\cup", "union") or (self.at("U") and pieces[0][0] in ("seq", "set") and self.take("U")):
            pieces.append(self.ratio())
        tree = ("union", *pieces) if len(pieces) > 1 else pieces[0]
        while tree[0] in ("seq", "set", "sym", "intersection") and self.take("\\cap"):
            tree = ("intersection", *(tree[1:] if tree[0] == "intersection" else (tree,)), self.ratio())
        return ("without", tree, self.ratio()) if self.take("\\setminus") else tree

    def ratio(self) -> Tree:
        parts = [self.sum()]
        while self.take(":"):
            parts.append(self.sum())
        return ("ratio", *parts) if len(parts) > 1 else parts[0]

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise OutOfBounds(f"nested deeper than {MAX_DEPTH}")
        yield
        self.depth -= 1

    def sum(self) -> Tree:
        if self.take("\\ldots", "\\dots", "\\cdots", "..."):
            return ("text", "...")
        with self.deeper():
            terms = [self.product()] if not self.at("+", "-", "\\pm", "\\mp") else [("num", Fraction(0))]
            while self.at("+", "-", "\\pm", "\\mp"):
                operator = self.next().value
                term = self.product()
                if operator in ("\\pm", "\\mp"):
                    terms = [("pm", 1 if operator == "\\pm" else -1, _join("add", terms), term)]
                else:
                    terms.append(term if operator == "+" else ("neg", term))
        return _join("add", terms[1:] if len(terms) > 1 and terms[0] == ("num", 0) else terms)

    def product(self) -> Tree:
        factors = [self.signed()]
        while True:
            if self.at("\\times") and (_is_vector(factors[-1]) or factors[-1][0] in ("set", "seq")):
                self.next()
                factors[-1] = ("fn", "cross", factors[-1], self.signed())
            elif self.take("*", "\\cdot", "\\times"):
                factor = self.signed()
                if factors[-1][:3] == factor[:3] == ("seq", "(", ")") and len(factors[-1]) == len(factor):
                    factors[-1] = matrices.dot(factors[-1], factor)
                else:
                    factors.append(factor)
            elif self.take("\\bmod", "\\mod"):
                factors = [("fn", "mod", _join("mul", factors), self.argument())]
            elif self.take("\\pmod"):
                factors = [("fn", "pmod", _join("mul", factors), self.argument())]
            elif self.take("/", "\\div"):
                factors = [("div", _join("mul", factors), self.signed())]
            elif self.starts_factor():
                factors.append(self.power())
            else:
                return _join("mul", factors)

    def signed(self) -> Tree:
        if self.take("-"):
            with self.deeper():
                return ("neg", self.signed())
        self.take("+")
        return self.power()

    def starts_factor(self) -> bool:
        """Whether a factor without a sign begins here. None follows a unit: "2 hours 30 minutes" is no product."""
        kind, value, _ = self.token
        before = self.tokens[self.position - 1].kind
        if before == "unit":
            return False
        if kind == "num":  # 2 3 is no product, and 2^6 3^5 is one
            return before != "num" or self.token.spaced and self.tokens[self.position - 2].value == "^"
        if kind == "word":
            return value not in ("and", "or", "union", "in", "mod") and not (value == "U" and self.after_set())
        if kind == "cmd":
            return value not in words.RELATIONS and value not in words.OPERATORS
        return value in ("(", "[", "{", "\\{") or (value == "|" and not self.bars)

    def after_set(self) -> bool:
        return self.tokens[self.position - 1].value in (")", "]", "\\}")

    def power(self) -> Tree:
        """A primary with its mixed fraction, factorials, exponents, degree sign, percent sign and units."""
        integer = self.token if self.token.kind == "num" and self.token.value.isdigit() else None
        tree = self.primary()
        if integer and (fraction := self.mixed_fraction()):
            tree = ("add", tree, fraction)
        while True:
            if self.take("!"):
                tree = ("fn", "double factorial", tree) if self.take("!") else ("fact", tree)
            elif self.take("^", "**"):
                tree = matrices.raised(tree, self.exponent())
            elif self.take("\\degree"):
                if self.degrees:
                    tree = ("div", ("mul", tree, ("const", "pi")), ("num", Fraction(180)))
                else:
                    self.units.append("degree")
            elif self.take("%", "\\%"):
                self.percent = True
            elif self.token.kind == "unit":
                self.units.append(self.next().value)
            else:
                return tree

    def mixed_fraction(self) -> Tree | None:
        """The 1/2 of 3\\frac{1}{2} and of 3 1/2, if it is a fraction of whole numbers; None otherwise."""
        start = self.position
        if self.take("\\frac"):
            parts = [self.argument(), self.argument()]
            whole = all(part[0] == "num" and part[1].denominator == 1 for part in parts)
            if whole and parts[1][1] > parts[0][1]:
                return ("div", *parts)
        elif self.token.kind == "num" and self.token.spaced:
            top, slash, bottom = (self.tokens[self.position :] + [self.tokens[-1]] * 2)[:3]
            if slash.value == "/" and top.value.isdigit() and bottom.value.isdigit():
                self.position += 3
                return ("div", ("num", number(top.value)), ("num", number(bottom.value)))
        self.position = start
        return None

    def exponent(self) -> Tree:
        if self.at("{"):
            return self.braced()
        with self.deeper():
            if self.take("-"):
                return ("neg", self.exponent())
            tree = self.primary()
            return ("pow", tree, self.exponent()) if self.take("^", "**") else tree  # 2^3^4 is 2^(3^4)

    def braced(self) -> Tree:
        self.expect("{")
        tree = self.items()
        self.expect("}")
        return tree

    def argument(self) -> Tree:
        """The argument of a LaTeX command: a group, or one character (\\frac12, \\frac ab)."""
        if self.at("{"):
            return self.braced()
        token = self.token
        if (token.kind == "num" and token.value.isdigit() or token.kind == "word") and len(token.value) > 1:
            self.tokens[self.position : self.position + 1] = [
                Token(token.kind, token.value[0], token.spaced),
                Token(token.kind, token.value[1:], False),
            ]
        return self.primary()

    def primary(self) -> Tree:
        token = self.next()
        if token.kind == "num":
            return ("num", number(token.value))
        if token.kind == "text":
            return ("sym", token.value.strip())
        if token.kind == "word":
            return self.word(token)
        if token.kind == "cmd":
            return self.command(token.value)
        if token.value in ("(", "["):
            return self.bracketed(token.value)
        if token.value == "{":
            alone = self.position == 1 or self.tokens[self.position - 2].value in (",", ";", "\\{", "{")
            tree = self.items()
            self.expect("}")
            if alone and (self.token.kind == "end" or self.at(",", ";", "\\}", "}")):  # {1,{2}} without backslashes
                return ("set", *_members(tree))
            return tree
        if token.value == "\\{":
            tree = self.items()
            self.expect("\\}")
            return ("set", *_members(tree))
        if token.value == "|":  # ||x|| and |2|x| - 1|: where an expression must begin, a bar opens
            return self.enclosed("abs", "|")
        raise Unreadable(f"{token.value!r} begins no expression")

    def enclosed(self, name: str, closing: str) -> Tree:
        bars, self.bars = self.bars, int(closing == "|")
        tree = self.items()
        self.bars = bars
        self.expect(closing)
        return ("fn", name, tree)

    def bracketed(self, opening: str) -> Tree:
        bars, self.bars = self.bars, 0
        tree = self.items()
        self.bars = bars
        closing = self.expect(*words.CLOSING[opening])
        if tree[0] == "list":
            return ("seq", opening, closing, *tree[2:])
        if (opening, closing) in (("(", ")"), ("[", "]")):
            return tree
        raise Unreadable("unequal brackets around one item")

    def word(self, token: Token) -> Tree:
        """A run of letters: a function, a constant, one opaque word, or a product of symbols."""
        name = token.value
        if name.lower() in words.FUNCTIONS and len(name) > 1:
            return self.function(name.lower())
        if name in words.WRITTEN and (self.at("(") or words.WRITTEN[name] == "\\sqrt" and self.token.kind == "num"):
            return self.command(words.WRITTEN[name], degree=3 if name == "cbrt" else 2)
        if name in words.GREEK:
            return self.applied(self.subscripted(f"\\{name}", ("sym", f"\\{name}")))
        if name in words.CONSTANTS:
            return self.subscripted(name, ("const", words.CONSTANTS[name]))
        if name in ("gcd", "lcm", "max", "min") and self.at("("):
            return self.command(f"\\{name}")
        if len(name) > 3 or (len(name) == 3 and not set(name) <= set("abcxyz")):
            return self.subscripted(name, ("sym", name))
        if len(name) > 1:  # xy is a product: split the word into letters
            self.position -= 1
            self.tokens[self.position : self.position + 1] = [
                Token("word", letter, token.spaced and first == 0) for first, letter in enumerate(name)
            ]
            return self.primary()
        return self.applied(self.subscripted(name, ("sym", name)))

    def applied(self, function: Tree) -> Tree:
        """f(x), f^{-1}(x), f(2) and P(A) as one symbol; P of P(1 + r), which is a product."""
        start, name = self.position, function[1]
        anything = name.rstrip("'") in words.FUNCTIONS_OF_ANYTHING
        if len(name.lstrip("\\").split("_")[0].rstrip("'")) > 1 and not name.startswith("\\"):
            return function
        if name == "E" and self.at("[", "("):  # an expectation, of random variables in capitals
            argument = self.primary()
            if symbols(argument) and all(symbol.isupper() for symbol in symbols(argument)):
                return ("sym", f"E[{spell(argument)}]")
            self.position = start
            return function
        inverse = [token.value for token in self.tokens[start : start + 5]] == ["^", "{", "-", "1", "}"]
        if inverse:
            self.position += 5
            name = f"{name}^-1"
        if self.at("(") and not self.token.spaced:
            argument = self.primary()
            bare = argument[1] if argument[0] == "neg" else argument
            if bare[0] in ("num", "sym", "const"):
                return ("sym", f"{name}({bare[1] if argument is bare else f'-{bare[1]}'})")
            if anything or name == "P" and argument[0] in ("union", "intersection", "rel"):
                return ("sym", f"{name}({spell(argument)})")
        self.position = start
        return function

    def subscripted(self, name: str, tree: Tree) -> Tree:
        """A symbol with its subscript and primes: x_{n+1} is one symbol, and its name contains the subscript's text."""
        if name and self.take("_"):
            start = self.position
            self.argument()
            inner = "".join(token.value for token in self.tokens[start : self.position])
            tree = ("sym", f"{name}_{inner.strip('{}')}")
        while name and self.take("'"):
            tree = ("sym", f"{tree[1]}'")
        return tree

    def function(self, name: str) -> Tree:
        name = words.SPELLINGS.get(name, name)
        exponent = base = None
        for _ in range(2):
            if self.take("^"):
                exponent = self.exponent()
            elif self.take("_"):
                base = self.argument()
            elif name == "log" and self.at_written_base():
                base = ("num", number(self.next().value))
        degrees, self.degrees = self.degrees, self.degrees or name in words.ANGULAR
        if self.at("(", "{", "["):
            argument = self.primary()
        else:  # sin 2x: the factors that follow
            argument = self.power()
            factors = [argument]
            while self.starts_factor() and not self.at("(", "[", "\\sqrt", "\\frac"):
                if self.token.value.lstrip("\\") in words.FUNCTIONS:
                    break
                factors.append(self.power())
            argument = _join("mul", factors)
        self.degrees = degrees
        if name in ("log", "lg"):
            tree: Tree = ("fn", "log", base or ("num", Fraction(10)), argument)
        elif name == "cis":
            tree = ("pow", ("const", "e"), ("mul", ("const", "i"), argument))
        else:
            tree = ("fn", name, argument)
        if exponent == ("neg", ("num", Fraction(1))) and f"arc{name}" in words.INVERSES:
            return ("fn", f"arc{name}", argument)
        return ("pow", tree, exponent) if exponent else tree

    def at_written_base(self) -> bool:
        """Whether the next token is the base in log2(5)."""
        kind, value, spaced = self.token
        return kind == "num" and value.isdigit() and not spaced and self.tokens[self.position + 1].value == "("

    def command(self, name: str, degree: int = 2) -> Tree:
        if name == "\\frac":
            return ("div", self.argument(), self.argument())
        if name == "\\sqrt":
            index: Tree = ("num", Fraction(degree))
            if self.take("["):
                index = self.sum()
                self.expect("]")
            return ("fn", "root", index, self.primary() if not self.at("{") else self.braced())
        if name == "\\binom" and self.at("("):
            pair = self.primary()
            return ("fn", "binom", *pair[3:])
        if name == "\\binom":
            return ("fn", "binom", self.argument(), self.argument())
        if name in ("\\gcd", "\\lcm", "\\max", "\\min") and self.at("("):
            several = self.primary()
            return ("fn", name[1:], *(several[3:] if several[0] == "seq" else (several,)))
        if name in ("abs", "floor", "ceil"):
            return ("fn", name, self.primary())
        if name in ("\\sum", "\\prod"):
            return self.repeated("add" if name == "\\sum" else "mul")
        if name in words.ACCENTS:
            start = self.position
            self.argument()
            inner = "".join(token.value for token in self.tokens[start : self.position])
            return ("sym", f"{name}{{{inner.strip('{}')}}}")
        if name in ("\\lfloor", "\\lceil"):
            return self.enclosed(name[2:], f"\\r{name[2:]}")
        if name == "\\langle":
            tree = self.items()
            self.expect("\\rangle")
            return ("seq", "(", ")", *_members(tree))
        if name == "\\begin{matrix}":
            return self.matrix()
        if name in words.CONSTANTS:
            return ("const", words.CONSTANTS[name])
        if name[1:] in words.FUNCTIONS:
            return self.function(name[1:])
        if name in words.LETTERS or name.startswith("\\mathbb"):
            return self.applied(self.subscripted(name, ("sym", name)))
        raise Unreadable(f"unknown command {name}")

    def repeated(self, head: str) -> Tree:
        """The terms of a finite sum or product after \\sum or \\prod."""
        self.expect("_")
        first = self.argument()
        self.expect("^")
        last = self.exponent()
        body = self.product()
        if first[0] != "rel" or first[1] != ("=",) or first[2][0] != "sym" or not {first[3][0], last[0]} <= {"num"}:
            raise Unreadable("a sum without numbers as its bounds")
        low, high = first[3][1], last[1]
        if low.denominator != 1 or high.denominator != 1 or not 0 <= high - low < MAX_TERMS:
            raise Unreadable(f"a sum that has not 1 to {MAX_TERMS} terms")
        if is_larger(body, MAX_SUM_NODES // int(high - low + 1)):
            raise OutOfBounds(f"a sum of more than {MAX_SUM_NODES} nodes")
        terms = [substituted(body, first[2], ("num", low + place)) for place in range(int(high - low) + 1)]
        return _join(head, terms)

    def matrix(self) -> Tree:
        """The rows after \\begin{matrix}, up to and with \\end{matrix}."""
        rows: list[Tree] = [()]
        while True:
            if self.take("\\end{matrix}"):
                break
            if self.take("\\\\"):
                rows.append(())
            elif not self.take("&"):
                rows[-1] = (*rows[-1], self.sum())
        return ("matrix", *(row for row in rows if row))
