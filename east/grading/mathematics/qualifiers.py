"""Words after a number that say in which direction it counts: 5 miles north, 5% increase, $5 profit, 5 pm.

Answers with opposite words are different. An answer without such a word matches one with it, except for words that turn
the sign: 5 is not "5 less", and -5 is.
"""

import re

# A row has opposites, separated by slashes; the words between two slashes mean the same.
_OPPOSITES = """
north northward N / south southward S / east eastward E / west westward W / northeast NE / northwest NW / southeast SE
/ southwest SW
left leftward / right rightward
up upward upstairs uphill above / down downward downstairs downhill below
upstream / downstream
forward forwards / backward backwards
clockwise / counterclockwise anticlockwise
off discount cheaper / more increase increment gain profit rise growth surplus credit markup overpaid /
less fewer decrease loss losse drop decline reduction deficit short shortage debt debit underpaid
win success passed / failure lose failed
gained deposited earned received saved won income / lost withdrawn spent paid owed expense
rose climbed / fell dropped sank
bought / sold
head heads / tail tails
full / empty
ascending / descending
vertical / horizontal
top / bottom
overweight / underweight
older old / younger young
longer taller larger bigger greater higher / shorter smaller lower
heavier / lighter
faster / slower
hotter warmer / colder cooler
inside indoors / outside outdoors
front ahead / behind
before earlier early ago yesterday / after later late now tomorrow
am midnight morning / pm noon evening afternoon night
celsius / fahrenheit / kelvin
maximum max / minimum min
inclusive / exclusive
even / odd
prime / composite
finite / infinite
valid / invalid
equal / unequal
present / absent
many / few
"""
_VALUES = {
    word: f"{number}:{words.split()[0]}"
    for number, row in enumerate(re.sub(r"\n/|/\n", "/", _OPPOSITES.strip()).splitlines())
    for words in row.split("/")
    for word in words.split()
}
_COMPOUND = re.compile(r"\b(counter|anti|north|south)[\s-]+(?=clock|east|west)", re.IGNORECASE)  # north-east
NEGATIVE = _VALUES["less"]
HALF_DAYS = {"a": _VALUES["am"], "p": _VALUES["pm"]}


def qualifiers(phrase: str) -> frozenset[str]:
    """The values of the words in a phrase: row of the table, and first word with the same meaning."""
    words = re.findall("[A-Za-z]+", _COMPOUND.sub(r"\1", phrase))
    found = (_VALUES.get(form) for word in words for form in (word, word.lower(), word.lower().removesuffix("s")))
    return frozenset(value for value in found if value)


def contradict(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two answers with these values cannot be equal."""
    if NEGATIVE in one ^ other:
        return True
    rows = [{value.split(":")[0]: value for value in values} for values in (one, other)]
    return any(rows[1].get(row, value) != value for row, value in rows[0].items())
