"""A YAML file, its base files and dotted overrides as one nested dict, not validated."""

from pathlib import Path
from typing import Any

import yaml


def read(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The values of a YAML file and its bases, overrides applied, not yet validated."""
    values = _read(Path(path), seen=())
    for override in overrides or []:
        apply(values, override)
    return values


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ValueError(f"{path}: `base:` files are a circle; remove one of the `base:` keys")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys) or {}
    except OSError as error:
        raise ValueError(f"{path}: cannot read the run file ({error.strerror}); give --config FILE") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: found a {type(values).__name__}, expected sections such as `model:`")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"{path}: found base: {base!r}, expected the name of another run file")
    return _merge(_read(path.parent / base, (*seen, path.resolve())), values)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a repeated key is an error: PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key `{twice[0]}` appears twice,{node.start_mark}; remove one")
        return super().construct_mapping(node, deep)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def apply(values: dict[str, Any], override: str) -> None:
    """Set what `section.key=value` names. Raises ValueError for text of another form."""
    key, sign, text = override.partition("=")
    if not sign:
        raise ValueError(f"override {override!r}: expected section.key=value, e.g. train.lr=1e-5")
    *sections, last = key.strip().split(".")
    for name in sections:
        inner = values.get(name)
        values[name] = inner = dict(inner) if isinstance(inner, dict) else {}
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[last] = text
