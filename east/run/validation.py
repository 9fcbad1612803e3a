"""Typed sections from nested dicts, with one-line errors that name the key, and the table of all keys."""

import difflib
import json
import os
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

LocalPath = Annotated[str, AfterValidator(os.path.expanduser)]  # ~ is the home folder
Checked = TypeVar("Checked", bound=BaseModel)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def one_of(names: Collection[str]) -> AfterValidator:
    """A pydantic validator of a text that must be one of the names, looked up when a value is checked."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return value

    return AfterValidator(check)


def validate(section: type[Checked], values: dict[str, Any], where: str) -> Checked:
    """A section from a nested dict. Raises ValueError in one line that names each key, what was found and expected."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{where}: " + "; ".join(_explain(e, section) for e in error.errors())) from None


def _explain(error: Any, section: type[BaseModel]) -> str:
    path, known = [str(part) for part in error["loc"]], _known_keys(section)
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or difflib.get_close_matches(
            path[-1], known, n=1, cutoff=0.5
        )
        hint = f"did you mean `{near[0]}`?" if near else "see docs/configuration.md"
        return f"unknown key `{key}`; {hint}"
    if error["type"] == "missing":
        return f"`{key}` is missing; add it to the run file or give {key}=... on the command line"
    while path and ".".join(path) not in known:  # the parts below a key name an item of a list, or a type of a union
        path.pop()
    key = ".".join(path) or key
    message = error["msg"].removeprefix("Value error, ")
    return f"`{key}`: found {repr(error.get('input'))[:80]}; {message[:1].lower() + message[1:]}"


def _known_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        keys += [prefix + name] + (_known_keys(inner, f"{prefix}{name}.") if inner else [])
    return keys


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The Section in an annotation such as `Train` or `Lora | None`; None for plain values."""
    for part in getattr(annotation, "__args__", (annotation,)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def reference(section: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    """(key, default as YAML would write it) of every setting; `required` where there is no default."""
    rows = []
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner and not field.is_required() and field.default is not None or name == "model":
            assert inner is not None
            rows += reference(inner, f"{prefix}{name}.")
        elif inner:  # an optional section
            rows += [(prefix + name, "null"), *reference(inner, f"{prefix}{name}.")]
        else:
            rows.append((prefix + name, "required" if field.is_required() else json.dumps(field.default)))
    return rows
