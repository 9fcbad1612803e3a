r"""The spelling of an answer: what differs without a difference in meaning, undone by bounded rewrites.

`clean` turns what a model or a data set wrote ("$\dfrac34$.", "4√2", "32,\! 349", "10 square units") into
the one spelling that `answer_tree` parses. It knows no mathematics beyond spelling.
"""

import re
import unicodedata

MONEY = "$€£¥"
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_UNIT_NAMES = (
    "meter m metre|cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|inch in inches|"
    "foot ft feet|yard yd|mile mi mph|gram g|kg kilogram|pound lb|ounce oz|second s sec|minute min|"
    "hour h hr mph|day|week|month|year yr|dollar usd buck|cent|percent pct percentage|"
    "liter l litre|ml milliliter|gallon gal|degree deg|am|pm"
)
UNITS = {alias: names.split()[0] for names in _UNIT_NAMES.split("|") for alias in names.split()}
_MATHEMATICAL = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt cbrt abs floor ceil "
    "binom pi tau theta alpha beta gamma delta lambda mu sigma phi omega inf infinity oo and or union in mod"
)
FUNCTION_WORDS = frozenset(_MATHEMATICAL.split())
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "≦": r"\le ", "≧": r"\ge ", "⩽": r"\le ",
    "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ",
    "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "°": r"\degree ", "º": r"\degree ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "√": r"\sqrt ", "∛": r"\sqrt[3] ",
    "ℝ": r"\mathbb{R}", "…": r"\ldots ", "′": "'", "“": '"', "”": '"', "‘": "'", "’": "'", "∠": "",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "¢": r"\text{cents}",
}  # fmt: skip
_TABLE = str.maketrans(_UNICODE)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]{1,20}")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]{1,20}")

_TEXT = r"\\(?:text(?:bf|it|rm|normal|sf)?|mbox|hbox|mathrm|operatorname)\s*"
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<\|[^|>]{0,60}\|>|</s>", ""),
        (r"(?<=\d)(?:,\s*\\!|\s*\{\s*,\s*\}|\\!,)\s*(?=\d{3})", ""),  # 32,\! 349 and 10{,}000
        (r"(?<=\d)\\[,;: ](?=\d{3}(?!\d))", ""),  # 70\,000
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits)(?![a-z])", ""),
        (r"\\(?:mathbf|boldsymbol|mathit|bold|bf|rm|mathcal)(?![a-z])", ""),
        (_TEXT + r"\{", r"\\text{"),
        (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-z]))", r"\\degree "),
        (r"\\degree\s*[CF](?![a-zA-Z])", r"\\degree "),
        (
            r"\\(?:begin|end)\{(?:smallmatrix|[pbBvV]?matrix|array)\}(?:\{[lcr|]{1,20}\})?",
            lambda m: _matrix(m.group()),
        ),
        (r"\\overline\s*\{\s*([A-Z]{2,6})\s*\}", r"\1"),
        (r"\\(?:varnothing|emptyset)(?![a-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\([lr])vert(?![a-z])|\\[lr]?vert(?![a-z])|\\mid(?![a-z])", "|"),
        (r"\\(?:lbrace)(?![a-z])", r"\\{"),
        (r"\\(?:rbrace)(?![a-z])", r"\\}"),
        (r"(?<!\\)\\[!;:,> ]|~|\\q?quad(?![a-z])|\\hspace\{[^}]{0,20}\}|\\phantom(?:\{[^}]{0,20}\})?", " "),
        (r"\s+", " "),
    )
]
_WRAPPERS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\f?boxed\s*\{(.*)\}",
        r"\\text\{([^{}]*)\}",
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r"\$\$(.*)\$\$",
        r"\$([^$]*)\$",
        r"\*\*(.*)\*\*",
        r"\"(.*)\"",
        r"'(.*)'",
        r"`(.*)`",
        r"\{([^{}]*)\}",
        r"(?:\\approx|\\sim|=)(?![a-z])\s*(.*)",
    )
]
_END = re.compile(r"[\s.,;:?\\]+$")
_MONEY = re.compile(r"\\?[$€£¥]|(?<![a-zA-Z])(?:USD|US)(?=\s*\d)")
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)(?![a-zA-Z])")
_ASIDE = re.compile(r"(?<=\d)\s*\([a-z][a-z -]{2,20}\)$")  # 5 (five)
_INCHES = re.compile(r"(?<=\d)\s*(?:\"|''|')$")
_SCALE = re.compile(rf"(?<=\d)\s*(?:\\text\{{)?\s*({'|'.join(SCALES)})s?\b\s*(\}})?")
_TAIL = re.compile(
    r"(?<=[\d)}%!])\s*"
    r"((?:an?\s|per\s)?[a-zA-Z]+[.]?(?:[\s/*·-]{1,2}[a-zA-Z]+[.]?){0,5})"
    r"(\s*\^\s*\{?\s*[23]\s*\}?)?\s*(?:\([^()\d]{0,30}\))?$"
)
_ARTICLES = re.compile(r"\b(?:an?|the)\s+")


def _power_of_ten(scale: re.Match[str]) -> str:
    reopened = r"\text{" if r"\text{" in scale.group() and not scale.group(2) else ""
    return rf" \cdot 10^{{{SCALES[scale.group(1)]}}} {reopened}"


def _matrix(command: str) -> str:
    return r"\begin{matrix}" if "begin" in command else r"\end{matrix}"


def clean(text: str) -> str:
    """One spelling: ASCII and LaTeX commands, no wrappers, no style; time is linear in len(text)."""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate is a wrong character, not nothing
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT.sub(lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # zero-width characters and the like
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _unwrap(text.strip())


def _unwrap(text: str) -> str:
    """Remove what encloses the whole answer, and the punctuation behind it."""
    for _ in range(6):
        before = text
        if not text.endswith(("...", "\\ldots")):
            text = _END.sub("", text).strip()
        for wrapper in _WRAPPERS:
            if (match := wrapper.fullmatch(text)) and _balanced(match.group(1)):
                text = match.group(1).strip()
        if text == before:
            break
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def split_money(text: str) -> tuple[str, bool]:
    """(text without currency signs, whether there was one)."""
    bare = _MONEY.sub("", text).strip()
    return bare, bare != text


def mark_units(text: str) -> str:
    r"""The words behind a number become \text{...}: "10 square units" -> "10 \text{square units}"."""
    text = _ASIDE.sub("", _ORDINAL.sub("", text))
    text = _INCHES.sub(r"\\text{inches}", text)
    text = _SCALE.sub(_power_of_ten, text)
    tail = _TAIL.search(text)
    if tail is None:
        return text
    words = re.findall(r"[a-zA-Z]+", tail.group(1).lower())
    known = words[0].removesuffix("s") in UNITS or words[0] in UNITS
    if len(words[0]) == 1 and "/" not in tail.group(1):  # 5 m: a unit or a symbol (`Reading.measure`)
        return text
    if not known and (
        len(words[0]) < 3 or set(words[0]) <= set("abcxyz") or not tail.group().startswith(" ")
    ):
        return text  # 2xy
    if FUNCTION_WORDS.intersection(words):
        return text
    return f"{text[: tail.start(1)]}\\text{{{tail.group(1)}}}"


def squash(text: str) -> str:
    """A formula without its spaces and without the braces around single characters."""
    text = re.sub(r"\{(\w)\}", r"\1", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text))
    return re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", text)


def plain(text: str) -> str:
    """Words in lower case, without articles and punctuation; what is no words, squashed."""
    if "\\" in text.replace(r"\text", "") or not re.search("[a-zA-Z]{2}", text):
        return squash(text)
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).casefold()
    return " ".join(_ARTICLES.sub("", re.sub(r"[.,;:!?\"'`*]+(?=\s|$)|[\"'`*]", "", text)).split())
