"""Math-Verify's verdict on a response; the module of a child process, since its answers may take for ever."""

from math_verify import LatexExtractionConfig, parse, verify


def verdict(request: tuple[str, str]) -> bool | None:
    """Whether the end of a response says the gold answer; None where Math-Verify finds no answer there.

    request: (gold answer, end of a response). LaTeX extraction only: the other one hands text to sympy's parse_expr.
    """
    gold, response = request
    extraction = [LatexExtractionConfig()]
    found = parse(response, extraction)
    return bool(verify(parse(f"${gold}$", extraction), found)) if found else None
