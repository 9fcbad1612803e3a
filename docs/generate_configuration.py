"""Print docs/configuration.md: the keys of run files and study files, from the schema.

    python docs/generate_configuration.py > docs/configuration.md

The texts are the sections' docstrings and the fields' descriptions.
"""

import inspect
import itertools
import json
from collections.abc import Iterable
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from east.run.config import Config
from east.run.validation import reference, section_of
from east.study.study_file import Experiment, PaperResult, Study, StudyTask

HEAD = """# Configuration

<!-- Written by docs/generate_configuration.py from the schema: edit the descriptions there, in east/run/config.py and
east/study/study_file.py. -->

A run file is YAML with the sections below. A file may name another as its `base:`, whose values it changes;
`section.key=value` on the command line changes both. Lists and texts are written as in YAML. An unknown key is refused
with the nearest valid name. The resolved file is saved with every training run as `train/<label>/config.yaml`.

`required` has no default; `null` is none. In brackets are the allowed values, where they are a fixed list.
"""
STUDY = """## Study files

A study file (`east study --config FILE`) names run files next to it; see [studies](studies.md).
"""
STUDY_PARTS = {
    "The study": ("", Study),
    "Each of `tasks`": ("tasks.", StudyTask),
    "Each of `experiments`": ("experiments.", Experiment),
    "Each of `paper`": ("paper.", PaperResult),
}


def page() -> str:
    """docs/configuration.md."""
    parts = [HEAD]
    for name, keys in itertools.groupby(reference(Config), lambda row: row[0].rpartition(".")[0].partition(".")[0]):
        section = section_of(field(Config, name).annotation) if name else Config
        rows = [(key, default, field(Config, key)) for key, default in keys]
        parts.append(f"## {name or 'The run'}\n\n{inspect.getdoc(section)}\n\n{table(rows)}")
    parts.append(STUDY)
    for title, (prefix, section) in STUDY_PARTS.items():
        fields = [
            (prefix + name, each) for name, each in section.model_fields.items() if not section_of(each.annotation)
        ]
        rows = [(key, "required" if each.is_required() else json.dumps(each.default), each) for key, each in fields]
        parts.append(f"### {title}\n\n{inspect.getdoc(section)}\n\n{table(rows)}")
    return "\n".join(parts)


def field(section: type[BaseModel], key: str) -> Any:
    """The field of a dotted key."""
    first, _, rest = key.partition(".")
    found = section.model_fields[first]
    inner = section_of(found.annotation)
    return field(inner, rest) if rest and inner else found


def table(rows: Iterable[tuple[str, str, Any]]) -> str:
    """Rows (key, default, field) in Markdown."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, each in rows:
        names = [f"`{value}`" for value in choices(each.annotation)]
        allowed = f" ({', '.join(names)})" if names else ""
        lines.append(f"| `{key}` | `{default}` | {each.description}{allowed} |")
    return "\n".join(lines) + "\n"


def choices(annotation: Any) -> list[str]:
    """The texts of an annotation that allows these only, alone or in a list; none for other annotations."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    parts = [choices(part) for part in get_args(annotation) if part is not NoneType]
    return parts[0] if len(parts) == 1 else []


if __name__ == "__main__":
    print(page(), end="")
