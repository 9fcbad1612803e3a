"""Matrices and vectors as trees: transposed, as determinants, in sums and products."""

from collections.abc import Callable
from fractions import Fraction

from east.grading.mathematics.tree import Tree, is_larger, symbols

MAX_NODES = 2_000  # of an entry of a product; a product with larger ones is not worked out
MAX_DETERMINANT = 4  # rows; a larger determinant is not worked out


def raised(tree: Tree, exponent: Tree) -> Tree:
    """A power; the transposed matrix for (1, 2)^T and A^T."""
    if exponent == ("sym", "T") and tree[0] == "seq":
        return ("matrix", *((item,) for item in tree[3:]))
    if exponent == ("sym", "T") and tree[0] == "matrix" and len({len(row) for row in tree[1:]}) == 1:
        return ("matrix", *zip(*tree[1:], strict=True))
    return ("pow", tree, exponent)


def determinant(matrix: Tree) -> Tree | None:
    """The determinant by expansion along the first row; None if it is not square or has too many rows."""
    rows = matrix[1:]
    if len(rows) > MAX_DETERMINANT or any(len(row) != len(rows) for row in rows):
        return None
    if len(rows) == 1:
        return rows[0][0]  # type: ignore[no-any-return]
    terms: list[Tree] = []
    for place, entry in enumerate(rows[0]):
        minor = determinant(("matrix", *((*row[:place], *row[place + 1 :]) for row in rows[1:])))
        assert minor is not None
        term = ("mul", entry, minor)
        terms.append(("neg", term) if place % 2 else term)
    return ("add", *terms)


def identity_or_zero(tree: Tree, rows: int, columns: int) -> Tree | None:
    """The matrix of a size that 0, I or 6I stands for; None for other trees."""
    zero: Tree = ("num", Fraction(0))
    if tree == zero:
        return ("matrix", *((zero,) * columns for _ in range(rows)))
    factors = tree[1:] if tree[0] == "mul" else (tree,)
    if factors[-1] != ("sym", "I") or rows != columns:
        return None
    scalar = ("mul", *factors[:-1]) if factors[:-1] else ("num", Fraction(1))
    return ("matrix", *(tuple(scalar if row == column else zero for column in range(rows)) for row in range(rows)))


def worked_out(tree: Tree) -> Tree | None:
    """The matrix or vector that a calculation with matrices or vectors gives; None for other trees.

    Sums, products of matrices, multiples by a scalar. A product of matrices that is not defined, of vectors, or
    with names of matrices keeps its order: it is a function of its factors.
    """
    if tree[0] not in ("add", "neg", "mul", "div"):
        return tree if tree[0] == "matrix" or tree[:3] == ("seq", "(", ")") else None
    parts = [worked_out(part) for part in tree[1:]]
    if all(part is None for part in parts) or tree[0] == "div" and parts[1] is not None:
        return None
    if tree[0] == "add":
        return _sum([part for part in parts if part is not None]) if None not in parts else None
    if any(part is None and _is_matrix_name(factor) for part, factor in zip(parts, tree[1:], strict=True)):
        return ("fn", "product", *tree[1:])  # P D P^-1
    several = [part for part in parts if part is not None]
    scalars = [factor for part, factor in zip(parts, tree[1:], strict=True) if part is None]
    product = several[0]
    for factor in several[1:]:
        product = _product(product, factor)
        if product[0] == "fn":
            return ("fn", "product", *several)
    if tree[0] == "div":
        return _entries(product, lambda entry: ("div", entry, *scalars))
    if tree[0] == "neg":
        return _entries(product, lambda entry: ("neg", entry))
    return _entries(product, lambda entry: ("mul", *scalars, entry)) if scalars else product


def _is_matrix_name(tree: Tree) -> bool:
    return any(name[:1].isupper() for name in symbols(tree))


def dot(left: Tree, right: Tree) -> Tree:
    """The dot product of two vectors of one length."""
    return _inner(left[3:], right[3:])


def _entries(whole: Tree, change: Callable[[Tree], Tree]) -> Tree:
    if whole[0] == "seq":
        return (*whole[:3], *map(change, whole[3:]))
    return ("matrix", *(tuple(map(change, row)) for row in whole[1:]))


def _sum(terms: list[Tree]) -> Tree | None:
    if {term[0] for term in terms} == {"seq"} and len({len(term) for term in terms}) == 1:
        return ("seq", "(", ")", *(("add", *entries) for entries in zip(*(term[3:] for term in terms), strict=True)))
    if {term[0] for term in terms} != {"matrix"} or len({tuple(map(len, term[1:])) for term in terms}) > 1:
        return None
    rows = zip(*(term[1:] for term in terms), strict=True)
    return ("matrix", *(tuple(("add", *entries) for entries in zip(*row, strict=True)) for row in rows))


def _product(left: Tree, right: Tree) -> Tree:
    """The product of two matrices; ("fn", "product", ...) of others."""
    unknown = ("fn", "product", left, right)
    if left[0] != "matrix" or right[0] != "matrix" or {len(row) for row in left[1:]} != {len(right) - 1}:
        return unknown
    if len({len(row) for row in right[1:]}) != 1:
        return unknown
    columns = list(zip(*right[1:], strict=True))
    rows = [tuple(_inner(row, column) for column in columns) for row in left[1:]]
    if any(is_larger(entry, MAX_NODES) for row in rows for entry in row):
        return unknown
    return ("matrix", *rows)


def _inner(row: tuple[Tree, ...], column: tuple[Tree, ...]) -> Tree:
    return ("add", *(("mul", a, b) for a, b in zip(row, column, strict=True)))
