"""Two pages list what may be imported; all the rest is private to its distribution."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import TYPE_CHECKING

import pytest
from tests.repo.imports import INTERNAL, has_private_part, home, imports, is_internal
from tests.repo.test_public_names import declared

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .conftest import Module

PAGES = ("library.md", "plugins.md")
SECTION = re.compile(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A name that is filled in when a template becomes a file.
PLACEHOLDER = re.compile(r"\{\{?\s*(\w+)\s*\}?\}|\$\{?(\w+)\}?")


def listed(page: str) -> dict[str, list[str]]:
    """Return the modules that a page lists, each with its names in the order of the table."""
    return {module: ROW.findall(section) for module, section in SECTION.findall(page)}


def differences(names: list[str], offered: tuple[str, ...] | None) -> list[str]:
    """Return where the table of a page and the `__all__` of its module differ."""
    if offered is None:
        return ["the module has no __all__"]
    found = [
        *(f"{name} is on the page and not in __all__" for name in names if name not in offered),
        *(f"{name} is in __all__ and not on the page" for name in offered if name not in names),
    ]
    return found or (["the page has another order than __all__"] if [*offered] != names else [])


def is_exposed(name: str, public: Iterable[str], doors: set[str]) -> bool:
    """Return whether a module looks importable without being listed as such."""
    return not (name in public or name in doors or is_internal(name) or has_private_part(name))


def trespasses(
    package: str, tree: ast.Module, public: Mapping[str, list[str]], modules: set[str]
) -> list[str]:
    """Return the imports of names that another distribution of ours does not offer.

    Args:
        package: the package of the importing distribution, or an empty text for a stranger.
        tree: the syntax of the importing module.
        public: the modules that may be imported, with their names.
        modules: the names of all modules of ours.
    """
    found: list[str] = []
    for imported in imports(tree, package, is_package=True):
        if (top := imported.partition(".")[0]) not in modules or top == package:
            continue
        module = home(imported, modules)
        names = public.get(module or "")
        name = imported.rpartition(".")[2]
        is_offered = names is not None and (module == imported or name in names)
        found += [] if is_offered else [imported]
    return found


def lines(found: Mapping[str, list[str]]) -> str:
    """Return complaints in lines, each with the module or the file that it is about."""
    return "\n".join(f"{place}: {wrong}" for place, listed in found.items() for wrong in listed)


@pytest.fixture(scope="module")
def public(root: Path) -> dict[str, list[str]]:
    """Return what the two pages list."""
    folder = root / "docs" / "reference"
    return {
        module: names
        for page in PAGES
        for module, names in listed((folder / page).read_text()).items()
    }


@pytest.fixture(scope="module")
def doors(files: list[Path]) -> set[str]:
    """Return the modules that entry points name: programs load them, and authors do not."""
    found: set[str] = set()
    for path in files:
        if path.name == "pyproject.toml":
            project = tomllib.loads(path.read_text())["project"]
            groups = [*project.get("entry-points", {}).values(), project.get("scripts", {})]
            found |= {target.partition(":")[0] for group in groups for target in group.values()}
    return found


def test_pages_list_what_modules_offer(modules: list[Module], public: dict[str, list[str]]) -> None:
    """Each page has the names of `__all__`, in the same order, and each of them exists."""
    found: dict[str, list[str]] = {}
    for module in modules:
        if module.name in public:
            loaded = module.load()
            missing = [name for name in public[module.name] if not hasattr(loaded, name)]
            found[module.name] = [
                *differences(public[module.name], declared(module.tree)),
                *(f"{name} does not exist" for name in missing),
            ]
    assert set(found) == set(public)
    assert lines(found) == ""


def test_other_modules_are_private(
    modules: list[Module], public: dict[str, list[str]], doors: set[str]
) -> None:
    """A module on neither page has a private name, or belongs to an internal room."""
    assert [m.name for m in modules if is_exposed(m.name, public, doors)] == []


def test_pages_name_the_internal_rooms(root: Path) -> None:
    """A reader of the pages learns which packages are not for import."""
    pages = "".join((root / "docs" / "reference" / page).read_text() for page in PAGES)
    assert [room for room in INTERNAL if f"`{room}`" not in pages] == []


def test_distributions_import_public_modules_of_others(
    modules: list[Module], public: dict[str, list[str]]
) -> None:
    """No distribution imports a module or a name of another one that is not on a page."""
    names = {module.name for module in modules}
    found = {m.name: trespasses(m.distribution, m.tree, public, names) for m in modules}
    assert lines(found) == ""


def test_strangers_are_shown_public_modules(
    modules: list[Module], public: dict[str, list[str]], files: list[Path], root: Path
) -> None:
    """A plugin's tests, plugins made for tests, templates and examples import what is listed."""
    names = {module.name for module in modules}
    found: dict[str, list[str]] = {}
    for path in files:
        place = path.relative_to(root)
        package = place.parts[1].replace("-", "_") if place.parts[0] == "plugins" else ""
        for tree in shown(place, path):
            wrong = trespasses(package, tree, public, names)
            found.setdefault(str(place), []).extend(wrong)
    assert lines(found) == ""


def shown(place: Path, path: Path) -> list[ast.Module]:
    """Return the syntax of what a file shows to authors outside of this repository."""
    texts: list[str] = []
    if path.suffix == ".md":
        texts = BLOCK.findall(path.read_text())
    elif path.name.endswith(".py.template"):
        texts = [PLACEHOLDER.sub("placeholder", path.read_text())]
    elif path.suffix == ".py" and "plugins" in place.parts and "tests" in place.parts:
        # Rigs in `tests/support` may build on inner parts: the machines of one are `local` servers.
        return [] if "support" in place.parts else [ast.parse(path.read_text())]
    elif path.suffix == ".py" and place.parts[:2] == ("tests", "support"):
        texts = [text for text in constants(ast.parse(path.read_text())) if "import fleet" in text]
    return [tree for text in texts if (tree := parsed(text))]


def constants(tree: ast.Module) -> list[str]:
    """Return the texts that are written out in a module, such as the source of a plugin."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def parsed(text: str) -> ast.Module | None:
    """Return the syntax of a piece of Python, or None if it is a part of something else."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def test_differences_are_noticed() -> None:
    """A name that only the page or only the module has is found, and so is another order."""
    page = "# T\n## `a.b`\n\n| name | purpose |\n| `X` | one |\n| `f` | `g` |\n## Next\n| `h` |"
    assert listed(page) == {"a.b": ["X", "f"]}
    assert differences(["X", "f"], ("X", "f")) == []
    assert differences(["f", "X"], ("X", "f")) == ["the page has another order than __all__"]
    assert len(differences(["X"], ("f",))) == 2
    assert differences(["X"], None) == ["the module has no __all__"]


def test_exposed_modules_are_noticed() -> None:
    """A plain name outside of the internal rooms is found; listed and private ones are not."""
    names = ["fleeting.new", "fleeting.abc", "fleeting._text", "fleeting.local.x", "a_door"]
    exposed = [name for name in names if is_exposed(name, {"fleeting.abc"}, {"a_door"})]
    assert exposed == ["fleeting.new"]


def test_trespasses_are_noticed() -> None:
    """Private modules and unlisted names of another distribution are found, own ones are not."""
    text = """
from fleeting import Registry, hidden
from fleeting._config import decode
import fleeting.local
import fleeting.abc
from taskscaler._scaler import Taskscaler
from . import _own
import fleeting_plugin_of_the_page
"""
    public = {"fleeting": ["Registry"], "fleeting.abc": []}
    modules = {*public, "fleeting._config", "fleeting.local", "taskscaler", "taskscaler._scaler"}
    found = trespasses("taskscaler", ast.parse(text), public, modules)
    assert found == ["fleeting.hidden", "fleeting._config.decode", "fleeting.local"]
