"""Traps of the layout: names that shadow others, tests without a sentence, dead links."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
from collections import Counter
from pathlib import Path

import pytest

PACKAGES = ("fleeting", "taskscaler")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def is_test_file(path: Path) -> bool:
    """Return whether pytest would collect it."""
    return path.name.startswith("test_") and path.suffix == ".py"


def shadows(paths: list[Path]) -> list[str]:
    """Return the test files that would hide a package or each other when imported."""
    tests = [path for path in paths if "tests" in path.parts]
    names = Counter(path.name for path in tests if is_test_file(path))
    return [
        *(str(path) for path in tests if path.name == "__init__.py"),
        *(str(path) for path in tests if set(path.parts[:-1]) & set(PACKAGES) - {path.parts[0]}),
        *(name for name, count in names.items() if count > 1),
    ]


def undescribed(tree: ast.Module) -> list[str]:
    """Return the tests that do not state in one sentence what they prove."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not re.fullmatch(r"[A-Z0-9`].*\.", (ast.get_docstring(node) or ""), re.DOTALL)
    ]


def dead_links(page: Path, text: str) -> list[str]:
    """Return the links of a page to files that are not there."""
    targets = [link.partition("#")[0] for link in LINK.findall(text)]
    return [
        target
        for target in targets
        if target and "://" not in target and not (page.parent / target).exists()
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_not_a_namespace(package: str) -> None:
    """The installed package is imported, not a folder that happens to have its name."""
    assert importlib.import_module(package).__file__ is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_version_equals_metadata(package: str) -> None:
    """The version of the package is that of its distribution."""
    assert importlib.import_module(package).__version__ == importlib.metadata.version(package)


def test_tests_shadow_nothing(files: list[Path], root: Path) -> None:
    """No folder of tests is a package or named like one, and no two test files share a name."""
    assert shadows([path.relative_to(root) for path in files]) == []


def test_every_test_states_a_fact(sources: dict[Path, ast.Module]) -> None:
    """Each test function has a sentence that says what it proves."""
    tests = {str(path): tree for path, tree in sources.items() if is_test_file(path)}
    found = {path: undescribed(tree) for path, tree in tests.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_links_lead_somewhere(files: list[Path]) -> None:
    """Each relative link of the documentation names a file that exists."""
    pages = [path for path in files if path.suffix == ".md"]
    found = {str(page): dead_links(page, page.read_text()) for page in pages}
    assert {page: links for page, links in found.items() if links} == {}


def test_shadows_are_noticed() -> None:
    """A package of tests, a folder named like a package and a doubled name are found."""
    bad = ["tests/core/__init__.py", "tests/fleeting/test_a.py", "tests/test_b.py"]
    also = ["plugins/x/tests/test_b.py", "fleeting/tests/test_c.py"]
    assert len(shadows([Path(name) for name in (*bad, *also)])) == 3


def test_undescribed_tests_are_noticed() -> None:
    """A test without a docstring, or with one that is not a sentence, is found."""
    text = 'def test_a(): ...\nasync def test_b():\n    "works"\ndef test_c():\n    """It is."""'
    assert undescribed(ast.parse(text)) == ["test_a", "test_b"]


def test_dead_links_are_noticed() -> None:
    """A link to a missing file is found; one to a page, a part or the web is not."""
    text = "[a](gone.md) [b](test_layout.py#x) [c](#part) [d](https://example.org/x)"
    assert dead_links(Path(__file__), text) == ["gone.md"]


def test_questions_are_on_the_first_page(root: Path) -> None:
    """The first page of the documentation has each question with the title of its answer."""
    first = (root / "docs/README.md").read_text()
    pages = sorted((root / "docs/how-to").glob("*.md"))
    titles = {page.name: page.read_text().partition("\n")[0].removeprefix("# ") for page in pages}
    missing = [name for name, title in titles.items() if f"[{title}](how-to/{name})" not in first]
    assert len(pages) >= 10
    assert missing == []
