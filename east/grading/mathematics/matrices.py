"""Matrices as trees: transposed, as determinants, and multiplied by a scalar."""

from fractions import Fraction

from east.grading.mathematics.tree import Tree

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


def spread(tree: Tree) -> Tree | None:
    """A scalar times a matrix (or its negative, or a matrix over a scalar) as a matrix; None for other trees."""
    matrices = [part for part in tree[1:] if isinstance(part, tuple) and part and part[0] == "matrix"]
    divided_by = tree[0] == "div" and tree[2] in matrices
    if tree[0] not in ("mul", "div", "neg") or len(matrices) != 1 or divided_by:
        return None

    def inside(entry: Tree) -> Tree:
        return (tree[0], *(entry if part is matrices[0] else part for part in tree[1:]))

    return ("matrix", *(tuple(inside(entry) for entry in row) for row in matrices[0][1:]))
