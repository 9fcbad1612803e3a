"""Families of models: each exact end to end, or refused before anything is drawn."""

from pathlib import Path

import pytest

from tests import matrix, model_families

ROOT = Path(__file__).parent.parent


def documented() -> dict[str, tuple[str, str]]:
    """(training, sampling) by family, as docs/models.md has it."""
    rows = [line.split("|") for line in (ROOT / "docs" / "models.md").read_text().splitlines() if line.startswith("| ")]
    return {row[1].strip(): (row[3].strip(), row[4].strip()) for row in rows[1:]}


def test_the_table_has_every_family():
    assert set(documented()) == set(model_families.FAMILIES) and len(documented()) >= 40


@pytest.mark.parametrize("name", model_families.FAMILIES)
def test_a_family_is_exact_or_refused_as_the_table_says(name, tmp_path, family_tokenizer):
    """A change of the outcome is a change of docs/models.md: PYTHONPATH=. python docs/generate_models.py"""
    found = matrix.outcome(name, tmp_path, family_tokenizer)
    assert (found.training, found.sampling) == documented()[name], found.reasons
