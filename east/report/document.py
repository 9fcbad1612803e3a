"""A report as data: sections of text, tables and a figure; and its Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    """Rows of texts under a header; the note says how to read them."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""


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
    lines = [table.header, *table.rows]
    head, *rows = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return "\n".join([head, "|" + "---|" * len(table.header), *rows])
