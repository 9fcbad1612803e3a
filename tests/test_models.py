"""Families of models: each exact end to end, or refused before anything is drawn."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from tests import matrix, model_families

ROOT = Path(__file__).parent.parent


def documented() -> dict[str, tuple[str, str, str]]:
    """(training, lora, sampling) by family, as docs/models.md has it."""
    rows = [line.split("|") for line in (ROOT / "docs" / "models.md").read_text().splitlines() if line.startswith("| ")]
    return {row[1].strip(): (row[3].strip(), row[4].strip(), row[5].strip()) for row in rows[1:]}


def test_the_table_has_every_family():
    assert set(documented()) == set(model_families.FAMILIES) and len(documented()) >= 40


def known_settings(config_class: Any) -> set[str]:
    fields = set(config_class.__dataclass_fields__) | set(config_class.attribute_map)
    return fields | {name for name in dir(config_class) if isinstance(getattr(config_class, name), property)}


@pytest.mark.parametrize("name", model_families.FAMILIES)
def test_every_setting_is_one_of_the_config_class(name):
    """A config keeps a name that it does not know, so a misspelt setting would change nothing."""
    config_class = getattr(transformers, model_families.FAMILIES[name].config)
    settings = model_families.FAMILIES[name].settings
    assert set(settings) <= known_settings(config_class)
    for part in config_class.sub_configs.keys() & settings.keys():
        part_class = type(getattr(config_class(**settings), part))
        assert set(settings[part]) <= known_settings(part_class) | {"rope_theta"}  # DBRX reads it, undeclared


@pytest.mark.parametrize("name", model_families.FAMILIES)
def test_a_family_is_exact_or_refused_as_the_table_says(name, tmp_path, family_tokenizer):
    """A change of the outcome is a change of docs/models.md: PYTHONPATH=. python docs/generate_models.py"""
    found = matrix.outcome(name, tmp_path, family_tokenizer)
    assert (found.training, found.lora, found.sampling) == documented()[name], found.reasons
