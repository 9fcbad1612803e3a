r"""Normalising the spelling of an answer, by rewrites of bounded cost that do not change its meaning.

`clean` turns the spellings of models and data sets ("$\dfrac34$.", "4√2", "32,\! 349", "\textcolor{red}{12}") into
the one that `parser` reads.
"""

import re
import unicodedata

_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma "
    "tau upsilon phi chi psi omega"
)
_GREEK = {chr(0x3B1 + place): rf"\{name} " for place, name in enumerate(_GREEK_NAMES.split())} | {
    "Γ": r"\Gamma ", "Δ": r"\Delta ", "Θ": r"\Theta ", "Λ": r"\Lambda ", "Ξ": r"\Xi ", "Π": r"\Pi ",
    "Σ": r"\Sigma ", "Φ": r"\Phi ", "Ψ": r"\Psi ", "Ω": r"\Omega ", "ϕ": r"\phi ", "ϵ": r"\epsilon ",
    "ϑ": r"\vartheta ", "∆": r"\Delta ",
}  # fmt: skip
_UNICODE = _GREEK | {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "≦": r"\le ", "≧": r"\ge ", "⩽": r"\le ",
    "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "°": r"\degree ", "º": r"\degree ",
    "∪": r"\cup ", "∩": r"\cap ", "∖": r"\setminus ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "…": r"\ldots ", "′": "'", "“": '"', "”": '"',
    "‘": "'", "’": "'", "∠": "", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "¢": r"\text{cents}",
}  # fmt: skip
_TABLE = str.maketrans(_UNICODE)
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
_SUPERSCRIPTS = str.maketrans(_RAISED, "0123456789-+()abcdefghijklmnoprstuvwxyz")
_SUPERSCRIPT = re.compile(f"[{_RAISED}]{{1,20}}")
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₒₓₕₖₗₘₙₚₛₜ"
_SUBSCRIPTS = str.maketrans(_LOWERED, "0123456789+-()aeoxhklmnpst")
_SUBSCRIPT = re.compile(f"[{_LOWERED}]{{1,20}}")
_INDEXED_ROOT = re.compile(r"(?<![\w)\]}])([³⁴⁵⁶⁷⁸⁹])√")  # ³√5, but x²√3 is a product

# Commands that change only how their argument looks: the command is removed, its braces stay.
_STYLES = (
    "left|right|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|scriptscriptstyle|limits|nolimits|mathbf|mathsf|"
    "mathtt|mathit|mathcal|mathop|mathord|mathstrut|boldsymbol|bold|bm|bf|rm|it|sf|tt|tiny|scriptsize|footnotesize|"
    "small|normalsize|large|Large|LARGE|huge|Huge|underline|uline|emph|ensuremath|hfill|hfil|hskip|noindent|"
    "centering|angle|measuredangle"
)
_TEXT = r"\\(?:text(?:bf|it|rm|normal|sf|tt|up|md)?|mbox|hbox|mathrm|operatorname\*?)\s*"
_VECTOR = r"\\(?:mathbf|boldsymbol|bm|vec)\s*(?:\{\s*(\w)\s*\}|(?<=[a-z])\s(\w))"
_ENVIRONMENT = "aligned|align|equation|gathered|gather|split|center|math|displaymath"
_GROUP = r"(?:[^{}\\]|\\(?!over(?![a-z])|choose(?![a-z]))|\{[^{}]{0,200}\}){1,300}"
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:(?:,\s*\\!\s*|\s?\{\s*,\s*\}\s*|\\!,\s*|\\[,;: ]\s*|,)\d{3})+(?!\d)")
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<\|[^|>]{0,60}\|>|</s>", ""),
        (r"\{\s*([,:])\s*\}", r"\1"),  # 2{:}3, and 1{,}2, where {,} separates no thousands
        (r"\\!", ""),
        (rf"{_VECTOR}\s*\\times\s*{_VECTOR}", r"\\vec{\1\2}\\times\\vec{\3\4}"),
        (r"\\overrightarrow(?![a-z])", r"\\vec"),
        (r"\\vec\s*(?:\{\s*([a-z])\s*\}|\s([a-z]))(?!\s*\\times)(?<!\\times\\vec\{.\})(?![a-z])", r" \1\2 "),
        (r"\\overline\s*\{\s*([a-z])\s*\}", r"\\bar{\1}"),
        (r"\\rightarrow(?![a-z])", r"\\to"),
        (r"\\([lgn])eq(?![a-z])", r"\\\1e"),
        (r"\\not\s*=", r"\\ne "),
        (r"\\not\s*\\in(?![a-z])", r"\\notin "),
        (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r"\\begin\{cases\}([^&]{1,400}?)\\end\{cases\}", lambda m: m.group(1).replace("\\\\", ", ")),
        (r"\\textdollar(?![a-z])\s*(?:\{\})?", "$"),
        (r"\\colon(?![a-z])", ":"),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\[dt]binom(?![a-z])", r"\\binom"),
        (rf"\{{({_GROUP})\\over(?![a-z])({_GROUP})\}}", r"\\frac{\1}{\2}"),
        (rf"\{{({_GROUP})\\choose(?![a-z])({_GROUP})\}}", r"\\binom{\1}{\2}"),
        (r"\\dot\s*(?:\{\s*(\d)\s*\}|(\d))", r"\\overline{\1\2}"),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:textcolor|color|colorbox)\s*\{[^{}]{0,40}\}", ""),
        (rf"m?\\(?:{_STYLES})(?![a-zA-Z])|\\(?:boxed|fbox)\s*(?=\{{)", lambda m: _kept_m(m.group())),
        (rf"\\(?:begin|end)\{{(?:{_ENVIRONMENT})\*?\}}", ""),
        (_TEXT + r"\{", r"\\text{"),
        (r"\\(?:mathrm|text)\s+([a-zA-Z])(?![a-zA-Z])", r"\\text{\1}"),
        (r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![a-z]))", r"\\degree "),
        (r"\\degree\s*(?:C(?![a-zA-Z])|\\text\{\s*C\s*\})", r"\\degree \\text{celsius}"),
        (r"\\degree\s*(?:F(?![a-zA-Z])|\\text\{\s*F\s*\})", r"\\degree \\text{fahrenheit}"),
        (r"\(\s*(?:mod(?:ulo)?|\\text\{\s*mod(?:ulo)?\s*\}|\\mod|\\bmod)[\s\\]*(\d{1,9})\s*\)", r"\\pmod{\1}"),
        (r"\\text\{\s*mod\s*\}", r"\\bmod "),
        (r"(?<=\d)\s*\^\s*\{?\s*(?:\\text\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}(?![a-zA-Z])", ""),
        (r"\\\\\s*\[[\d.]{1,6}\s*(?:ex|em|pt|mm|cm)\]|\\cr(?![a-z])", r"\\\\"),
        (
            r"\\(?:begin|end)\{(?:smallmatrix|[pbBvV]?matrix|array)\}(?:\{[lcr|]{1,20}\})?",
            lambda m: _matrix(m.group()),
        ),
        (r"\\overline\s*\{\s*([A-Z]{2,6})\s*\}", r"\1"),
        (r"\\(?:varnothing|emptyset)(?![a-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\([lr])vert(?![a-z])|\\[lr]?vert(?![a-z])|\\mid(?![a-z])", "|"),
        (r"\\(?:lbrace)(?![a-z])", r"\\{"),
        (r"\\(?:rbrace)(?![a-z])", r"\\}"),
        (r"(?<!\\)\\[;:,> ]|~|\\q?quad(?![a-z])|\\hspace\{[^}]{0,20}\}|\\phantom(?:\{[^}]{0,20}\})?", " "),
        (r"\+\s?/\s?-", r"\\pm "),
        (r"\s+", " "),
    )
]
_WRAPPERS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\\text\{([^{}]*)\}",
        r"\\\((.*)\\\)",
        r"\\\[(.*)\\\]",
        r"\$\$(.*)\$\$",
        r"\$([^$]*)\$",
        r"\*\*(.*)\*\*",
        r"__+(.*?)__+",
        r"\"(.*)\"",
        r"'(.*)'",
        r"`(.*)`",
        r"\{(.*)\}",
        r"(?:\\approx|\\sim|=)(?![a-z])\s*(.*)",
    )
]
_END = re.compile(r"[\s.,;:?\\]+$")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MONEY = re.compile(
    r"(?:(?<![a-zA-Z])(?:US|USD|CA|AU|HK|NZ|S)\s?)?\\?[$€£¥₹₽₩₪฿₫₱₦₺₴]"
    r"|(?<![a-zA-Z])(?:USD?|EUR|GBP|INR|CAD|AUD|JPY|Rs)\.?(?=\s*\d)"
)
_MINUS = re.compile(r"^(?:negative|minus)\s+(?=[\d.\\(√])", re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:an?|the)\s+")


def _matrix(command: str) -> str:
    """A matrix in any brackets; a determinant as the absolute value of one."""
    bar = "|" if "{vmatrix}" in command else ""
    return rf"{bar}\begin{{matrix}}" if "begin" in command else rf"\end{{matrix}}{bar}"


def _kept_m(command: str) -> str:
    r"""The m of "m\angle A" is removed with its command; the m of "m\left(" stays."""
    return "m" if command.startswith("m") and not command.endswith("angle") else ""


def _without_separators(numeral: re.Match[str]) -> str:
    """32,\\! 349 and 1{,}234,567 without separators. Plain commas stay: they may separate the items of a list."""
    written = numeral.group()
    return re.sub(r"\D", "", written) if re.search(r"[\\{]", written) else written


def clean(text: str) -> str:
    """The text in ASCII and LaTeX commands, without delimiters and style commands. Time is linear in len(text)."""
    text = _SURROGATE.sub("\ufffd", text)  # a lone surrogate makes the answer wrong; it is not removed
    text = _INDEXED_ROOT.sub(lambda m: rf"\sqrt[{m.group(1).translate(_SUPERSCRIPTS)}] ", text)
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT.sub(lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # zero-width characters and the like
    text = _THOUSANDS.sub(_without_separators, text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _MINUS.sub("-", _unwrap(text.strip()))


def _unwrap(text: str) -> str:
    """Remove delimiters around the whole answer, and punctuation after it."""
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


def split_money(text: str) -> tuple[str, frozenset[str]]:
    """(the text without currency signs, the units that they stand for: dollar, euro, none for other currencies)."""
    signs = "".join(_MONEY.findall(text))
    names = {"$": "dollar", "USD": "dollar", "€": "euro", "EUR": "euro", "£": "pound", "₹": "rupee", "¥": "yen"}
    return _MONEY.sub("", text).strip(), frozenset(name for sign, name in names.items() if sign in signs)


def squash(text: str) -> str:
    """A formula without spaces and without braces around single characters."""
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"(?<!\w)\s+|\s+(?!\w)|(?<=\\to)\s+|(?<=[}^_])\s+(?!\d)|(?<=[\^_]\w)\s+(?!\d)", "", text)
    text = re.sub(r"(\\[a-zA-Z]+)\s+(?=\d)", r"\1", text)
    return re.sub(r"(?<=[\w^}\]])\{(\w)\}", r"\1", text)


def plain(text: str) -> str:
    """Words in lower case without articles and punctuation; a formula as `squash` returns it."""
    if "\\" in text.replace(r"\text", "") or not re.search("[a-zA-Z]{2}", text):
        return squash(text)
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).casefold()
    return " ".join(_ARTICLES.sub("", re.sub(r"[.,;:!?\"'`*]+(?=\s|$)|[\"'`*]", "", text)).split())
