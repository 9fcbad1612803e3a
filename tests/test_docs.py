"""README.md and docs/: the table of keys is current; links, paths and commands that they name exist."""

import importlib.util
import re
import string
from pathlib import Path

import pytest

from east.commands import VERBS

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if not path.is_symlink())
pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def test_table_of_keys_is_current():
    """docs/configuration.md is what docs/generate_configuration.py prints."""
    path = ROOT / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate_configuration", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = (ROOT / "docs" / "configuration.md").read_text()
    assert found == module.page(), "run `python docs/generate_configuration.py > docs/configuration.md`"


@pages
def test_relative_links_resolve(page):
    """To a file of the repository, and to a heading of it where the link names one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as mkdocs and GitHub derive them."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    kept = string.ascii_lowercase + string.digits + " -_"
    return {"".join(c for c in text.lower() if c in kept).strip().replace(" ", "-") for text in headings}


def code(page: Path) -> list[str]:
    """The code blocks and the words in backticks of a page."""
    return re.findall(r"^ *```.*?^ *```|`[^`\n]+`", page.read_text(), flags=re.M | re.S)


@pages
def test_commands_exist(page):
    """Every `east VERB` and `python -m east VERB` in code names a verb."""
    verbs = {verb for text in code(page) for verb in re.findall(r"(?:^|[\s`])east ([a-z]+)", text)}
    assert verbs <= {*VERBS}, f"no such verbs: {verbs - {*VERBS}}"


@pages
def test_files_exist(page):
    """Paths in code that begin with a folder of the repository; capitals are placeholders (configs/X.yaml)."""
    path = r"(?<![\w/.-])(?:east|configs|ds_configs|docs|benchmarks|tests|requirements)/[\w./-]*\w"
    paths = {found for text in code(page) for found in re.findall(path, text)}
    missing = {found for found in paths if found.islower() and not (ROOT / found).exists()}
    assert not missing, f"no such files: {sorted(missing)}"
