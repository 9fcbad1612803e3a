"""Words after a number that say in which direction it counts: 5 miles north, 5% increase, $5 profit, 5 pm.

Each word has a value on an axis. Answers with different values on one axis are different. An answer without the word
matches one with it, except for words that turn the sign: 5 is not "5 less", and -5 is.
"""

import re

_AXES = {
    "compass": (
        "north northward", "south southward", "east eastward", "west westward", "northeast", "northwest", "southeast",
        "southwest",
    ),
    "side": ("left leftward", "right rightward"),
    "height": ("up upward", "down downward"),
    "way": ("forward", "backward"),
    "turn": ("clockwise", "counterclockwise anticlockwise"),
    "change": (
        "more increase increment gain profit rise growth surplus win credit",
        "less fewer decrease loss losse drop decline reduction deficit short shortage debt debit",
    ),
    "age": ("older", "younger"),
    "size": ("longer taller larger bigger greater higher", "shorter smaller lower"),
    "weight": ("heavier", "lighter"),
    "speed": ("faster", "slower"),
    "heat": ("hotter warmer", "colder cooler"),
    "place": ("ahead", "behind"),
    "time": ("before earlier early", "after later late"),
    "day": ("am", "pm"),
}  # fmt: skip
_VALUES = {
    word: f"{axis}:{synonyms.split()[0]}"
    for axis, values in _AXES.items()
    for synonyms in values
    for word in synonyms.split()
}
NEGATIVE = "change:less"


def qualifiers(phrase: str) -> frozenset[str]:
    """The values ("compass:north") of the words in a phrase."""
    words = re.findall("[a-z]+", phrase.lower())
    values = (_VALUES.get(word) or _VALUES.get(word.removesuffix("s")) for word in words)
    return frozenset(value for value in values if value)


def contradict(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two answers with these values cannot be equal."""
    if NEGATIVE in one ^ other:
        return True
    axes = [{value.split(":")[0]: value for value in values} for values in (one, other)]
    return any(axes[1].get(axis, value) != value for axis, value in axes[0].items())
