r"""The words after a number: which of them are units, and which units they are.

A unit is dropped from the value, so a word is a unit only if it cannot be mathematics: words for operations,
comparisons, fractions, signs and negation ("5 squared", "5 or more", "3 quarters", "2 dozen") are not units, and an
answer with such a word is outside the grammar. A number after a unit begins another quantity ("2 hours 30 minutes")
and is not a factor.
"""

import re

from east.grading.mathematics.lexer import CONSTANTS, FUNCTIONS, GREEK, LETTERS, OPERATORS, RELATIONS, WRITTEN, Token
from east.grading.mathematics.qualifiers import qualifiers

_NAMES = (
    "meter m metre|cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|inch in inches|"
    "foot ft feet|yard yd|mile mi|gram g|kg kilogram|mg milligram|pound lb|ounce oz|ton tonne|second s sec|minute min|"
    "hour h hr|day|week|month|year yr|decade|century centurie|dollar usd buck|euro eur|cent|rupee inr|yen jpy|peso|"
    "percent pct percentage|liter l litre|"
    "milliliter ml millilitre|gallon gal|quart qt|pint|cup|degree deg|radian rad|hertz hz|kilohertz khz|"
    "megahertz mhz|gigahertz ghz|kilowatt kw|kwh|watt w|"
    "joule j|newton n|volt v|kilobyte kb|megabyte mb|gigabyte gb|tb terabyte|bit|byte|calorie cal|kcal|"
    "mole mol|pascal pa|kilopascal kpa|acre|hectare ha|knot"
)
_UNITS = {alias: names.split()[0] for names in _NAMES.split("|") for alias in names.split()}
_PREFIXES = {"k": "kilo", "M": "mega", "G": "giga", "c": "centi", "d": "deci", "m": "milli", "n": "nano", "µ": "micro"}
_PREFIXED = {"W": "watt", "J": "joule", "V": "volt", "N": "newton", "Pa": "pascal", "Hz": "hertz", "L": "liter",
             "b": "bit", "B": "byte", "eV": "electronvolt", "A": "ampere", "mol": "mole"}  # fmt: skip
_CASED = {short + letter: prefix + unit for short, prefix in _PREFIXES.items() for letter, unit in _PREFIXED.items()}
_SPELLED = {prefix + unit for prefix in _PREFIXES.values() for unit in (*_PREFIXED.values(), "meter", "gram", "second")}
_RATES = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour"), "kmph": ("km", "hour"),
          "fps": ("foot", "second"), "mps": ("meter", "second")}  # fmt: skip
LETTER_UNITS = "mgshlLNJWV"  # letters that may be a unit
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_ORDINALS = (
    "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth "
    "seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth hundredth thousandth millionth"
)
_MATHEMATICAL = (
    "plus minus divided multiplied added subtracted increased decreased over squared cubed factorial choose power root "
    "raised mod modulo base binary hex hexadecimal octal inverse conjugate or and not isn is least most above "
    "below under beyond exceeding between to through if unless except half halves quarter quarters dozen dozens "
    "gross negative positive twice double doubled triple tripled quadrupled quintupled halved quartered remainder lakh "
    "crore score ppm permille basis repeating "
    "recurring bar false wrong incorrect infinity"
)
_CALENDAR = (
    "january february march april may june july august september october november december jan feb mar apr jun jul "
    "aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thur thurs "
    "fri sat sun"
)
FRACTIONS = {word + ending for word in _ORDINALS.split() for ending in ("", "s")}
_MATH = FUNCTIONS | WRITTEN.keys() | GREEK | {"union", "pi", "inf", "oo"}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALED = {"tens"} | {word + ending for word in SCALES for ending in ("", "s")}
CALENDAR = {*_CALENDAR.split()}
NEVER_UNITS = ({*_MATHEMATICAL.split()} | CALENDAR | FRACTIONS | _SCALED | _MATH) - {"sec"}

_COMPARED = re.compile(r"\bthan(?:\s+(?:the|an?|[a-zA-Z])\b|\s*$)")  # 5 more than x; but "5 more than before" is 5
_EXPONENT = re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?")
_ASIDE = re.compile(r"(?<=\d)\s*\([a-z][a-z -]{2,20}\)$")  # 5 (five)
_INCHES = re.compile(r"(?<=\d)\s*(?:\"|'')$")
_FEET = re.compile(r"(?<=\d)\s*'$")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)(?![a-zA-Z])")
_SCALE = re.compile(rf"(?<=\d)\s*(?:\\text\{{)?\s*({'|'.join(SCALES)})s?\b\s*(\}})?")
_TAIL = re.compile(
    r"(?:(?<=[\d)}%!])|(?<=\bpi))\s*(?!pi\b)"
    r"((?:/\s?|an?\s|per\s|each\s)?[a-zA-Z]+[.]?(?:[\s/*·-]{1,2}[a-zA-Z]+[.]?){0,5}(?:\s*\^\s*\{?\s*[23]\s*\}?)?)"
    r"\s*(?:\([^()\d]{0,30}\))?$"
)


def known(word: str) -> str | None:
    """The unit that a word names, by the first name in its group of _NAMES; None for other words."""
    if word in _CASED:
        return _CASED[word]
    lower = word.lower()
    single = lower.removesuffix("s").replace("metre", "meter").replace("litre", "liter")
    return _UNITS.get(lower) or _UNITS.get(single) or (single if single in _SPELLED or lower in _RATES else None)


def is_unit(phrase: str) -> bool:
    """Whether the words after a number can be dropped without changing its value."""
    words = re.findall(r"[a-zA-Z]+", phrase)
    if not words or _COMPARED.search(phrase) or not re.fullmatch(r"[a-zA-Z\s.,()'/*·-]+", _EXPONENT.sub(" ", phrase)):
        return False
    if any(word.lower() in NEVER_UNITS for word in words):
        return False
    letters = [word for word in words if len(word) == 1 and word != "a"]
    return words != ["a"] and all(letter in LETTER_UNITS for letter in letters)


def unit_set(phrase: str) -> frozenset[str]:
    """The known units in a phrase, with their powers: {km, hour^-1} for "km/h" and "kilometers per hour"."""
    powers: dict[str, int] = {}
    sign, power, last = 1, 1, ""
    for part in re.findall(r"[a-zA-Z]+|/|\^\s*\{?\s*-?\d", phrase):
        if part.startswith("^"):
            if last:
                powers[last] *= int(re.sub(r"[^\d-]", "", part))
        elif part in ("/", "per", "each", "every") or part in ("a", "an") and powers:
            sign = -1
        elif part in _POWERS:
            power = _POWERS[part]
        elif part == "squared" and last:
            powers[last] *= 2
        else:
            unit = known(part)
            names = _RATES.get(unit, (unit,)) if unit else ()
            for place, name in enumerate(names):
                powers[name] = powers.get(name, 0) + (-1 if place else sign) * power
                last = name
            sign, power, last = 1, 1, last if names else ""
    return frozenset(name if power == 1 else f"{name}^{power}" for name, power in powers.items() if power)


def _power_of_ten(scale: re.Match[str]) -> str:
    reopened = r"\text{" if r"\text{" in scale.group() and not scale.group(2) else ""
    return rf" \cdot 10^{{{SCALES[scale.group(1)]}}} {reopened}"


def mark_units(text: str) -> str:
    r"""The text with the words after a number in \text{...}: "10 square units" -> "10 \text{square units}"."""
    text = _ASIDE.sub("", _ORDINAL.sub("", text))
    text = _FEET.sub(r"\\text{feet}", _INCHES.sub(r"\\text{inches}", text))
    text = _SCALE.sub(_power_of_ten, text)
    tail = _TAIL.search(text)
    if tail is None:
        return text
    phrase = tail.group(1)
    words = re.findall(r"[a-zA-Z]+", phrase)
    if len(words[0]) == 1 and "/" not in phrase[1:] and words[0] != "a":
        return text  # 5 m: a unit or a symbol (`Reading.measure`)
    noun = tail.group().startswith(" ") and not phrase.startswith("/") and (_counted(words[0]) or words[0] == "of")
    if not (known(words[0]) or words[0] in _POWERS or qualifiers(words[0]) or noun):
        return text  # 2xy
    if not is_unit(phrase):
        return text
    return f"{text[: tail.start(1)]}\\text{{{re.sub(r'[{}]', '', phrase)}}}"


def _counted(word: str) -> bool:
    """Whether a word may be the name of what is counted, and not a product such as ab or xyz."""
    return len(word) > 2 and not set(word) <= set("abcxyz") or word == "a"


def group(tokens: list[Token]) -> list[Token]:
    r"""The tokens, with every unit after a value as one token of kind "unit": \text{kg}\cdot\text{m}^2, m/s.

    A letter, constant or function inside \text{} or \mathrm{} is read as if it were outside.
    """
    tokens = [_unwrapped(token) for token in tokens]
    grouped: list[Token] = []
    place = 0
    while place < len(tokens):
        stop, spelled = _unit_at(tokens, place) if grouped and _ends_value(grouped[-1]) else (place, "")
        if spelled:
            grouped.append(Token("unit", spelled, tokens[place].spaced))
            place = stop
        else:
            grouped.append(tokens[place])
            place += 1
    return grouped


def _unwrapped(token: Token) -> Token:
    if token.kind != "text":
        return token
    content = token.value.strip()
    if content in LETTERS or content in CONSTANTS and content.startswith("\\"):
        return Token("cmd", content, token.spaced)
    letter = len(content) == 1 and content.isalpha() and content.isascii() and content not in LETTER_UNITS
    function = content in FUNCTIONS and content != "sec" or content in WRITTEN
    return Token("word", content, token.spaced) if letter or function else token


def _ends_value(token: Token) -> bool:
    if token.kind == "cmd":
        return token.value not in OPERATORS and token.value not in RELATIONS
    return token.kind in ("num", "word", "text") or token.value in (")", "]", "}", "\\}", "|", "!", "%", "\\%", "'")


def _unit_at(tokens: list[Token], place: int) -> tuple[int, str]:
    """(the place after the unit that begins at `place`, its spelling); the spelling is empty if none begins there."""
    if tokens[place].value == "\\frac":
        return _unit_fraction(tokens, place)
    slash = "/" if tokens[place].value == "/" else ""
    spelled, stop = "", place + len(slash)
    while stop < len(tokens):
        token = tokens[stop]
        if not _is_unit_token(tokens, stop, first=not spelled and not slash):
            break
        spelled += ("" if not spelled or spelled[-1] in "/*" else " ") + token.value.strip(" .,()")
        stop += 1
        exponent = "".join(t.value for t in tokens[stop : stop + 5])
        if power := re.match(r"\^(?:\{-?\d\}|\d)", exponent):
            spelled += re.sub(r"[{}]", "", power.group())
            taken = 0
            while taken < len(power.group()):
                taken += len(tokens[stop].value)
                stop += 1
        joined = stop + 1 < len(tokens) and tokens[stop].value in ("/", "\\cdot", "*", "\\times")
        if joined and _is_unit_token(tokens, stop + 1, first=False):
            spelled += "/" if tokens[stop].value == "/" else "*"
            stop += 1
    return (stop, slash + spelled) if spelled else (place, "")


def _is_unit_token(tokens: list[Token], place: int, first: bool) -> bool:
    """Whether a token is part of a unit: \\text{cm} anywhere, and the boys in "20 boys + 40 girls"."""
    kind, value, spaced = tokens[place]
    if kind == "text":
        return is_unit(value)
    if kind != "word" or not spaced or len(value) < 2 or not is_unit(value):
        return False
    if first and tokens[place - 1].kind != "num":
        return False
    return _counted(value) or bool(known(value) or qualifiers(value)) and value != "in"


def _unit_fraction(tokens: list[Token], place: int) -> tuple[int, str]:
    r"""`_unit_at` for \frac{\text{km}}{\text{h}}."""
    parts, stop = [], place + 1
    for _ in range(2):
        if stop >= len(tokens) or tokens[stop].value != "{":
            return place, ""
        end, spelled = _unit_at(tokens, stop + 1)
        if not spelled or tokens[stop + 1].kind != "text" or end >= len(tokens) or tokens[end].value != "}":
            return place, ""
        parts.append(spelled)
        stop = end + 1
    return stop, "/".join(parts)
