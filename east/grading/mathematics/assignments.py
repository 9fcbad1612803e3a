"""Names in answers: x of "x = 3", of "x < 3" and of "|x - 5| < 3"; x and y of "x = 3, y = 4"."""

from east.grading.mathematics import inequalities
from east.grading.mathematics.tree import Tree, is_variable, spell, symbols

_NO_NAMES = {"root", "max", "min", "cross", "mod", "pmod"}  # of functions whose value is an equation, not a name
_INEQUALITIES = {"<", "<=", ">", ">=", "!="}


def assignments(tree: Tree) -> tuple[Tree, tuple[str, ...], Tree | None]:
    """(value, names, relation) of "x = 3", of "x = 3, y = 4" and of "x = 1, x = 2"."""
    if tree[0] == "list":
        parts = [_assignment(item) for item in tree[2:]]
        names = [name for name, _, _ in parts if name]
        if len(names) == len(parts) and len(set(names)) == len(names):
            return (*tree[:2], *(value for _, value, _ in parts)), tuple(names), None
        if names and len(set(names)) == 1 and (len(names) == len(parts) or parts[0][0]):
            return (*tree[:2], *(value for _, value, _ in parts)), (names[0],), None
        return tree, (), None
    name, value, relation = _assignment(tree)
    return value, (name,) if name else (), relation


def _assignment(tree: Tree) -> tuple[str | None, Tree, Tree | None]:
    """(name, value, relation) of "x = 3", whose value is 3, and of "x < 3", whose value is the whole inequality."""
    if tree[0] != "rel":
        return None, tree, None
    operators, members = tree[1], list(tree[2:])
    if operators == ("in",):
        return name_of(members[0]), members[1], None
    if set(operators) <= _INEQUALITIES:
        return _compared(members), tree, None
    if set(operators) - {"=", "~"}:
        return None, tree, None
    if "~" in operators:  # the value of sqrt(5) ~ 2.236 is sqrt(5); of x ~ 11 it is 11
        cut = operators.index("~") + 1
        members = members[:cut] if cut > 1 or not is_name(members[0]) else members[: cut + 1]
    if len(members) == 1:
        return None, members[0], None
    if len(members) == 2 and is_name(members[1]) and not is_name(members[0]) and not symbols(members[0]):
        members.reverse()
    if is_name(members[0]) and not symbols(members[0]) & symbols(members[-1]):
        whole = ("rel", ("=",), members[0], members[-1])
        return name_of(members[0]), members[-1], whole if symbols(members[-1]) else None
    if not symbols(members[-1]) and (len(members) > 2 or not symbols(members[0])):
        return None, members[-1], None  # 2 * 3! * 4! = 2 * 6 * 24 = 288
    if len(members) == 2 and (root := inequalities.root(members[0], members[1])) is not None:
        (name,) = symbols(tree)
        return name, root, None  # 2x = 4
    return None, tree, None


def _compared(members: list[Tree]) -> str | None:
    """The name in an inequality with one variable; None for other inequalities."""
    free = [member for member in members if symbols(member)]
    if len(free) != 1:
        return None
    variables = symbols(free[0])
    return name_of(free[0]) if is_variable(free[0]) else next(iter(variables)) if len(variables) == 1 else None


def name_of(tree: Tree) -> str:
    """The name in an assignment: x, f(x), f^-1(x), and AB for the segment AB and for its length |AB|."""
    if tree[0] == "fn" and tree[1] == "abs" and is_name(tree[2]) and tree[2][0] == "mul":
        return name_of(tree[2])
    return tree[1].removeprefix("\\vec").strip("{}") if tree[0] == "sym" else spell(tree)


def is_name(tree: Tree) -> bool:
    """Whether a value may be assigned to a tree: x, a_n, f(x), AB, |AB|, (p, q), \\sin x."""
    if tree[0] == "fn" and tree[1] not in _NO_NAMES:
        return all(part[0] in ("num", "sym") or is_name(part) for part in tree[2:]) and bool(symbols(tree))
    if tree[0] == "seq":
        return all(item[0] == "sym" for item in tree[3:])
    return is_variable(tree)
