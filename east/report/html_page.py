"""report.html: tables, figures and the explorer in one page that opens without a network.

What models wrote is in the page as gzipped base64, which no text can break out of, or escaped in tables. The page's
policy lets nothing be fetched and no script run but its own, which is named by its hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jinja2

from east.report.document import Section
from east.report.explorer import QuestionSet, trims

PARTS = Path(__file__).parent / "page_parts"


def page(title: str, sections: Sequence[Section], sets: Sequence[QuestionSet]) -> str:
    """The report as one HTML page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS),
        autoescape=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_half_pairs,
    )
    environment.filters["base64"] = _base64
    environment.filters["svg"] = lambda figure: _base64(figure.with_suffix(".svg").read_bytes())
    script = (PARTS / "page.js").read_text(encoding="utf-8")
    names = [{"name": each.name, "about": trims(each)} for each in sets]
    return environment.get_template("page.html").render(
        title=title,
        style=(PARTS / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=_base64(hashlib.sha256(script.encode()).digest()),
        sections=sections,
        sets=sets,
        names=names,
    )


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _without_half_pairs(value: object) -> object:
    """A text with half surrogate pairs replaced, which a UTF-8 page cannot have; other values as they are.

    Only plain texts: text that is marked as safe is of a subclass of str, and would be escaped if it lost the mark.
    """
    return value.encode("utf-8", "replace").decode() if type(value) is str else value
