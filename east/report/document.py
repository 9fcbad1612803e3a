"""A report as data: sections of text, tables and a figure; and its Markdown."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    """Rows of texts under a header; the note says how to read them. texts: the cells have what models wrote."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""
    texts: bool = False


class Section(NamedTuple):
    """A part of a report. figure: path of a figure without its suffix, `caption` what it shows."""

    title: str
    text: list[str]
    tables: Sequence[Table] = ()
    figure: Path | None = None
    caption: str = ""


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown; figures by their path relative to the report."""
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *section.text]
        for table in section.tables:
            parts += [markdown_table(table)] + ([table.note] if table.note else [])
        if section.figure:
            parts += [f"![{section.caption}](figures/{section.figure.name}.png)", section.caption]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    """A table in Markdown."""
    rows = [[_code(cell) for cell in row] for row in table.rows] if table.texts else table.rows
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [table.header, *rows])
    return "\n".join([head, "|" + "---|" * len(table.header), *body])


def _code(text: str) -> str:
    """A text as Markdown's code, in which nothing is markup: between more backticks than are in it."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if text else ""
