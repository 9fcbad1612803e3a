r"""The formula, the bold part or the number that a sentence states as its result.

Which words negate a number or change its value is known to `mathematics.prose`.
"""

import re
import unicodedata
from collections.abc import Iterator

from east.grading.mathematics import prose
from east.grading.mathematics.lexer import FUNCTIONS, WRITTEN
from east.grading.mathematics.qualifiers import NEGATIVE, qualifiers
from east.grading.mathematics.reading import read

MAX_SENTENCE = 1_000  # characters; a longer one states nothing
MAX_BOLD = 12  # bold parts read, from the end of a sentence

SEGMENT = re.compile(
    r"(?<!\\)\$\$(.{1,1000}?)\$\$|(?<!\\)\$((?:[^$\n\\]|\\[^\n]){1,500})\$(?!\d)"
    r"|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]",
    re.DOTALL,
)
BOLD = re.compile(r"(?<![\w*])\*\*(?=[^\s*])([^*\n]{1,200})\*\*(?![\d*])")
CLOSING = re.compile(  # a sentence after the answer that says nothing of it
    r"[\W_]*+(?:$|(?:so |and )?(?:i |we )?hope\b|let me know|feel free|is there anything|please\b|thank|great\b"
    r"|good luck|if you (?:have|need|want|would)|would you like|do you|happy to|done\b|q\.?e\.?d\b"
    r"|[\w' ]{0,60}\banswer(?: above)? is (?:indeed )?(?:correct|right|final|helpful)\b)",
    re.IGNORECASE,
)
_SPLIT = re.compile(
    r"(?<=[.!?])(?<!\b[A-J]\.)(?<!\bvs\.)(?<!\bNo\.)(?<!approx\.)(?<!i\.e\.)(?<!e\.g\.)"
    r"[*_\"')\]]{0,3}\s+(?=[^\sa-z])|(?<=[。！？])|\s(?=(?:So|Thus|Hence|Therefore)\b)"
)
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
NUMERAL = r"[-−+]?(?:\\?[$€£¥₹] ?)?(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:/\d+|[ ]\d+/\d+|:\d\d\b)?(?:[ ]?\\?%)?"
_UNIT = (
    r"(?:[cmk]?m|k?g|m?[lL]|ft|in|mph|hr?s?|lbs?|oz)(?:[²³]|\^\{?[23]\}?)?(?:/(?:hr?|min|s|[cmk]?m|[lL])[²³]?)?"
    r"(?![a-zA-Z0-9_^])"
)
_NUMBER = re.compile(
    rf"(?<!\w\()(?<![a-zA-Z0-9_.,/^<>≤≥≠*×÷+)\]}}\\–-])({NUMERAL})"
    rf"(?={_UNIT}|(?![a-zA-Z0-9_/^*–]|[-.,]\d|-\w))"
)
_LEAD = re.compile(
    r"(?:(?:so|now|next|then|finally|therefore|thus|hence|and|but|also|in conclusion|as a result|consequently"
    r"|in the end)\b,?\s+|(?:since|because|as)\b[^,]{1,80},\s+|(?:[-•*+>]|\d{1,2}[.)])\s+)",
    re.IGNORECASE,
)
_NO_RESULT = re.compile(  # headings, options, assumptions and plans
    r"#|\||[{}]|\(?(?-i:[A-J])[.:)]\s|(?:step|part|question|problem|case|example|figure|equation|exercise|page|chapter|note|recall|remember|let"
    r"|suppose|assume|assuming|consider|given|if|when|where|while|for|unless|except|use|using|return|print|try|check|repeat|take|go|hint|tip|think|put|look"
    r"|continue"
    r"|(?:(?:we|you|i)\s+)?(?:(?:can|need|must|should|will|have|want|could|would)\s+)?(?:to\s+)?"
    r"(?:find|comput|calculat|determin|solv|simplif|divid|multipl|add|subtract|substitut|verif|check|round|convert|set)"
    r"(?:e|es|ing|y|ying|s|t)?\b(?! that))\b",
    re.IGNORECASE,
)
_IS = re.compile(
    r"\b(?:is|are|was|were|be|equals|total of)\s+"
    r"(?:(?:only|just|exactly|now|then|therefore|thus|also|equal to|approximately|about)\s+)*(?=[-−+$€£.\d])"
)
_IS_BEFORE = re.compile(r"\b(?:is|are|was|were|be|equals|equal to)\s+$")
UNCERTAIN = re.compile(
    r"\b(?:whether|may(?:be)?|perhaps|might|could|should|seems?|guess|doubt|suppose|wonder|try|trying|if|unless"
    r"|ruled out|reject\w*|none of|too (?:small|large|big|low|high|few|many)|close|near|contradict\w*|impossible"
    r"|wrong|false|incorrect"
    r"|cannot|never|not(?= be\b))\b|n't\b",
    re.IGNORECASE,
)
_REFERENCE = re.compile(  # what a number is the name of, or what is done with it
    r"\b(?:(?i:see|step|equation|eq\.|theorem|lemma|chapter|section|problem|figure|page|case|example|line|row|rule|option"
    r"|part|question|method)|[A-Z]{2,}"
    r"|(?i:sum|product|digits?|half|roots?|multiples?|factors?|divisors?)\b[^.,]*\bof"
    r"|(?i:divid|multipl|subtract|add|substitut|round|simplif)\w*(?:\s+\S+){0,4}?)\s+[($#]?$"
)
_NOT_COUNTED = re.compile(r"\s+(?:is|are|was|has|works?|divides|steps?|methods?|cases?|equations?|examples?)\b")
_YEAR = re.compile(r"(?:\b(?:in|since|of|year)|©)\s+(?:19|20)\d\d$")
_LISTED = re.compile(r"[$)\]]\s*(?:,|,?\s*(?:and|or))\s*$")
_HARMLESS = re.compile(r"\b(?:each|every|ordered pair|approximately|about|roughly)\b", re.IGNORECASE)
_AFTER_NUMBER = re.compile(r"[,;:(]|\s(?:which|because|since|so|and|but|as|when|if|after|before|with|each|every)\b")
_NAMES = {*FUNCTIONS, *WRITTEN, "pi", "and", "frac", "sqrt", "cdot", "times"}
_ONLY_NAME = re.compile(r"[a-zA-Z]{1,2}(?:_\{?\w\}?|\([a-z]\))?'?")
FOREIGN = re.compile("[\u0400-\u04ff\u0590-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")  # not Latin or Greek


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph."""
    return [part for part in _SPLIT.split(text) if part.strip()]


def word_count(text: str) -> int:
    r"""The words of a text that are no LaTeX commands."""
    return len(_WORDS.findall(text))


def closes(text: str) -> bool:
    """Whether a text says nothing about an answer."""
    return all(CLOSING.match(part) for line in text[:400].splitlines() for part in sentences(line))


def bold_values(sentence: str) -> Iterator[str]:
    """The bold numbers and formulas of a sentence that it does not negate, the last one first."""
    for bold in reversed(list(BOLD.finditer(sentence))[-MAX_BOLD:]):
        lead, rest = sentence[: bold.start()], BOLD.sub("", sentence[bold.end() :])
        if (
            re.search(r"\d", lead + rest)
            and not _IS_BEFORE.search(f"{lead.rstrip(' :')} ")
            and not lead.rstrip().endswith("=")
        ):
            continue  # one of several numbers
        claimed = states_value(bold.group(1)) and _claims(lead, "") and not UNCERTAIN.search(rest)
        if claimed and (value := result(bold.group(1).strip(), announced=True)):
            yield value


def states_value(text: str) -> bool:
    """Whether a bold text may be an answer: it has a number or a formula, and is not a heading ("Step 3:")."""
    text = text.strip()
    return (
        not text.endswith(":") and not _NO_RESULT.match(text) and bool(re.search(r"\d", text) or SEGMENT.search(text))
    )


def result(sentence: str, *, announced: bool = False) -> str | None:
    """The formula or the number, with the words behind it, that a sentence states; None if it states none or several.

    announced: a sentence in another language counts although its words are unknown.
    """
    if len(sentence) > MAX_SENTENCE:
        return None
    sentence = _plain(sentence)
    while lead := _LEAD.match(sentence):
        sentence = sentence[lead.end() :]
    if sentence.endswith(("?", ":")):
        return None
    formulas = [segment for segment in SEGMENT.finditer(sentence) if is_formula(segment)]
    if _NO_RESULT.match(SEGMENT.sub("x", sentence) if formulas else sentence):
        return None
    if formulas:
        return _last_formula(sentence, formulas[-1])
    sentence = re.sub(r"\\text\{([^{}]*)\}", r"\1", sentence)
    words = [word for word in _WORDS.findall(sentence) if word not in _NAMES]
    if not words and not FOREIGN.search(sentence):
        bare = sentence.strip(" =.")
        return bare if re.search(r"\d", bare) and not re.search(r"[<>≤≥≠]", bare) and _is_read(bare) else None
    return _after_equals(sentence) or _only_number(sentence, announced) or _after_is(sentence)


def _plain(sentence: str) -> str:
    """A sentence in ASCII where it is written in Latin letters, without bold signs and brackets around it."""
    text = without_accents(sentence.translate({0x2019: "'", 0x2018: "'", 0x201C: '"', 0x201D: '"'}))
    text = re.sub(r"(?<!\w)\*\*|\*\*(?!\w)|`", "", text).strip(" \t*_\"'✅").rstrip(".!。")
    text = re.sub(r"\s\((?:[^()]*[a-zA-Z=][^()]*)\)$", "", text)
    brackets = re.fullmatch(r"(.*?)\[([^\[\],]+)\]", text)
    return "".join(brackets.groups()) if brackets else text


def without_accents(text: str) -> str:
    """Latin letters with accents as plain letters."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _last_formula(sentence: str, formula: re.Match[str]) -> str | None:
    lead, rest = SEGMENT.sub(" ", sentence[: formula.start()]), sentence[formula.end() :]
    if not UNCERTAIN.search(lead) and (verb := _IS_BEFORE.search(lead)):
        lead = verb.group()
    stated = content(formula).rstrip(".,")
    if (
        re.search(r"\d", rest)
        or _LISTED.search(sentence[: formula.start()])
        or _ONLY_NAME.fullmatch(stated)
        or not _claims(lead, rest)
    ):
        return None
    return stated.lstrip("= ")


def _after_equals(sentence: str) -> str | None:
    """8 of "5 + 3 = 8"."""
    number = _NUMBER.match(after := sentence.rpartition("=")[2].strip()) if "=" in sentence else None
    if number is None or re.search(r"\d", after[number.end() :]):
        return None
    if UNCERTAIN.search(sentence) or re.search(r"\b(?:not|no|neither|nor|or)\b|n't\b", sentence):
        return None
    if FOREIGN.search(after):
        return number.group(1)
    return _with_words(after)


def _only_number(sentence: str, announced: bool) -> str | None:
    numbers = list(_NUMBER.finditer(sentence))
    if len(numbers) != 1:
        return None
    lead, rest = sentence[: numbers[0].start()], sentence[numbers[0].end() :]
    if re.search(r"\d", lead + rest) or _NOT_COUNTED.match(rest) or _YEAR.search(f"{lead}{numbers[0].group()}"):
        return None
    if FOREIGN.search(sentence):
        return numbers[0].group(1) if announced else None
    return _with_words(sentence[numbers[0].start() :]) if _claims(lead, rest) else None


def _after_is(sentence: str) -> str | None:
    """12 of "The total for 3 boxes is 12"; None for "Ann is 3 and Tom is 4"."""
    verbs = list(_IS.finditer(sentence))
    if len(verbs) != 1 or FOREIGN.search(sentence) or UNCERTAIN.search(sentence[: verbs[0].start()]):
        return None
    return _only_number(sentence[verbs[0].start() :], announced=False)


def _with_words(text: str) -> str | None:
    """A number with the words behind it, if they are read together as a value."""
    number = _NUMBER.match(text)
    end = _AFTER_NUMBER.search(text, number.end() if number else 0)
    phrase = (text[: end.start()] if end else text).strip(" .")
    if number and NEGATIVE in qualifiers(phrase):  # "she earned 40 less" states 40; the answer "40 less" is -40
        phrase = number.group(1)
    return phrase if _is_read(phrase) else None


def _is_read(text: str) -> bool:
    return read(text).tree is not None


def _claims(lead: str, rest: str) -> bool:
    """Whether the words around a value neither negate nor change it."""
    if re.search(r"[-+*/×÷^]\s*$", lead) or UNCERTAIN.search(lead) or _REFERENCE.search(lead):
        return False
    rest = re.sub(rf"^\s*(?:{_UNIT}|[ap]\.?m\b\.?)", "", rest)
    lead, rest = (_HARMLESS.sub("", re.sub(r"[^a-zA-Z\s.,;:'<>]", " ", part)) for part in (lead, rest))
    return prose.stated(f"{lead}7 {rest}")[0] == 7


def is_formula(segment: re.Match[str]) -> bool:
    """Whether `$...$` contains mathematics, and not the words between two prices ("$5 and $6")."""
    written = segment.group(2)
    return (
        written is None
        or written == written.strip()
        or not _WORDS.search(re.sub(r"\\[a-z]+(?:\{[^}]*\})+", "", written))
    )


def content(segment: re.Match[str]) -> str:
    """What `$...$` contains."""
    return next(group for group in segment.groups() if group is not None).strip()
