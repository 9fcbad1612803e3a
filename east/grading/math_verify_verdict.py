"""Math-Verify's verdict on a response. Called in a child process, because Math-Verify may not end."""

from math_verify import LatexExtractionConfig, parse, verify


def verdict(request: tuple[str, str]) -> bool | None:
    """Whether Math-Verify finds the gold answer at the end of a response; None if it finds no answer.

    request: (gold answer, end of a response). LaTeX extraction only: the other one passes text to sympy's parse_expr,
    which evaluates it.
    """
    gold, response = request
    extraction = [LatexExtractionConfig()]
    answer = parse(response, extraction)
    return bool(verify(parse(f"${gold}$", extraction), answer)) if answer else None
