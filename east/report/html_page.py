"""report.html: tables, figures and the explorer in one page that opens without a network.

What models wrote stands in the page only as gzipped base64, which no text can break out of; the rest is escaped.
The page's policy lets nothing be fetched and no script run but its own, which is named by its hash.
"""

import base64
import hashlib
import html
import json
import string
from collections.abc import Sequence
from pathlib import Path

from east.report.document import Section
from east.report.explorer import QuestionSet, trims

PARTS = Path(__file__).parent / "page_parts"


def page(title: str, sections: Sequence[Section], sets: Sequence[QuestionSet]) -> str:
    """The report as one HTML page."""
    script = (PARTS / "page.js").read_text(encoding="utf-8")
    names = [section.title for section in sections]
    links = [f'<a href="#section-{k}">{html.escape(name)}</a>' for k, name in enumerate(names)]
    return string.Template((PARTS / "page.html").read_text(encoding="utf-8")).substitute(
        title=_safe(title),
        style=(PARTS / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        links="".join(links + ['<a href="#questions">Questions</a>'] * bool(sets)),
        sections="\n".join(_section(k, section) for k, section in enumerate(sections)),
        no_questions="" if sets else "hidden",
        data=_data(sets),
    )


def _section(number: int, section: Section) -> str:
    parts = [f'<section id="section-{number}"><h2>{_safe(section.title)}</h2>']
    parts += [f"<p>{_safe(line)}</p>" for line in section.text]
    for table in section.tables:
        head = "".join(f"<th scope=col>{_safe(cell)}</th>" for cell in table.header)
        rows = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
        parts.append(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')
        parts += [f'<p class="note">{_safe(table.note)}</p>'] if table.note else []
    if section.figure:
        source = base64.b64encode(section.figure.with_suffix(".svg").read_bytes()).decode()
        image = f'<img alt="{_safe(section.caption)}" src="data:image/svg+xml;base64,{source}">'
        parts.append(f"<figure>{image}<figcaption>{_safe(section.caption)}</figcaption></figure>")
    return "".join(parts) + "</section>"


def _data(sets: Sequence[QuestionSet]) -> str:
    """The sets' blocks: a list of their names, then base64 alone."""
    names = json.dumps([{"name": each.name, "about": trims(each)} for each in sets])
    blocks = [f'<script type="application/json" id="sets">{names.replace("<", chr(92) + "u003c")}</script>']
    for s, each in enumerate(sets):
        packed = {f"index-{s}": each.table, **{f"chunk-{s}-{c}": chunk for c, chunk in enumerate(each.chunks)}}
        for name, value in packed.items():
            blocks.append(f'<script type="text/plain" id="{name}">{base64.b64encode(value).decode()}</script>')
    return "\n".join(blocks)


def _safe(text: str) -> str:
    """Escaped, with half surrogate pairs replaced: they have no place in a UTF-8 page."""
    return html.escape(text.encode("utf-8", "replace").decode())
