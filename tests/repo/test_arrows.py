"""Which distribution and room may import which: the arrows of the architecture."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

from tests.repo.imports import imports, is_ours, is_within

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .conftest import Module

# Modules that a pure decision may need. None of them waits, or reads a clock, a file, a random
# number or the network; check that before you add one.
PURE = {
    *("__future__", "abc", "bisect", "collections", "contextlib", "copy", "dataclasses"),
    *("enum", "fractions", "functools", "heapq", "itertools", "math", "operator", "re"),
    *("reprlib", "statistics", "string", "textwrap", "types", "typing", "typing_extensions"),
    *("datetime", "msgspec"),
    *("fleeting.errors", "fleeting.types", "taskscaler.core", "taskscaler._errors"),
}
CLOCKS = {"now", "today", "utcnow"}
IMPURE_BUILTINS = {"__import__", "breakpoint", "input", "open", "print"}


def forbidden(importer: str, imported: str) -> str | None:
    """Return why one of our modules may not import a name, or None if it may."""
    source, target = importer.partition(".")[0], imported.partition(".")[0]
    if target in {"fleeting", source} or not is_ours(target):
        reason = None
    elif source == "fleeting":
        reason = "fleeting imports no distribution that builds on it"
    elif target == "taskscaler":
        reason = "a plugin imports fleeting only"
    else:
        reason = "plugins do not import each other; find them by entry point"
    if is_within(imported, f"{target}.cli") and is_ours(target):
        inside = is_within(importer, f"{target}.cli") or importer == f"{target}.__main__"
        reason = reason if inside else "no module builds on a command line"
    if is_within(importer, "taskscaler.core") and not any(is_within(imported, ok) for ok in PURE):
        reason = "the core gets everything as an argument and does no I/O"
    return reason


def wrong_arrows(name: str, tree: ast.Module, *, is_package: bool = False) -> list[str]:
    """Return a complaint for each import that the architecture forbids."""
    return [
        f"{name} imports {imported}: {reason}"
        for imported in imports(tree, name, is_package=is_package)
        if (reason := forbidden(name, imported))
    ]


def impurities(tree: ast.Module) -> list[str]:
    """Return the calls that read a clock, a file or a terminal without an import."""
    found: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                found.append(f"line {node.lineno}: {name}()")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)):
                if owner in {"datetime", "date"} and name in CLOCKS:
                    found.append(f"line {node.lineno}: {owner}.{name}()")
            case _:
                pass
    return found


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    """Return which distributions provide a package; reading their metadata takes a second."""
    return packages_distributions()


def undeclared(imported: Iterable[str], declared: set[str]) -> set[str]:
    """Return the imported packages that no declared distribution provides."""
    providers = _providers()
    strangers = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    return {
        package
        for package in strangers
        if not {canonical(name) for name in providers.get(package, [package])} & declared
    }


def canonical(requirement: str) -> str:
    """Return the normalized name of a distribution, without extras and versions."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def declarations(pyproject: Path) -> set[str]:
    """Return the distributions that a project may import: its own, and those it requires."""
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    wanted = [project["name"], *project.get("dependencies", ()), *(r for e in extras for r in e)]
    return {canonical(requirement) for requirement in wanted}


def test_every_import_follows_an_arrow(modules: list[Module]) -> None:
    """No module of ours imports what the architecture forbids."""
    complaints = [
        complaint
        for module in modules
        for complaint in wrong_arrows(
            module.name, module.tree, is_package=module.path.stem == "__init__"
        )
    ]
    assert complaints == []


def test_core_calls_nothing_impure(modules: list[Module]) -> None:
    """The core reads no clock and opens no file, not even by a built-in function."""
    core = [module for module in modules if is_within(module.name, "taskscaler.core")]
    assert core
    assert {m.name: found for m in core if (found := impurities(m.tree))} == {}


def test_every_imported_distribution_is_declared(modules: list[Module], root: Path) -> None:
    """Each distribution requires, at least by an extra, what its modules import."""
    complaints: list[str] = []
    for module in modules:
        project = root / module.path.relative_to(root).as_posix().partition("/src/")[0]
        is_package = module.path.stem == "__init__"
        missing = undeclared(
            imports(module.tree, module.name, is_package=is_package),
            declarations(project / "pyproject.toml"),
        )
        complaints += [f"{module.name} imports {name}, not required" for name in missing]
    assert complaints == []


def test_wrong_arrows_are_noticed() -> None:
    """Each forbidden arrow gives a complaint, also from inside a function."""
    samples = {
        "fleeting._registry": "def f():\n    import taskscaler.core",
        "fleeting.types": "from fleeting import cli",
        "fleeting.cli.main": "import taskscaler",
        "fleeting_plugin_aws": "from taskscaler import NoCapacity",
        "fleeting_plugin_docker": "from fleeting_plugin_static import anything",
        "taskscaler._scaler": "from .cli import main",
        "taskscaler.jobs": "from fleeting.cli import main",
        "taskscaler.core.model.slots": "import time",
        "taskscaler.core.model.group": "from fleeting.abc import InstanceGroup",
        "taskscaler.core.demand": "from .. import scaler",
        "taskscaler.core.model.policy": "from zoneinfo import ZoneInfo",
    }
    assert {name for name, text in samples.items() if not wrong_arrows(name, ast.parse(text))} == (
        set()
    )


def test_right_arrows_pass() -> None:
    """The arrows of the architecture give no complaint."""
    samples = {
        "fleeting.cli.main": "from fleeting._registry import Registry",
        "fleeting_plugin_aws": "from fleeting.abc import InstanceGroup\nimport boto3",
        "taskscaler.cli.run": "import fleeting._config, taskscaler.jobs, taskscaler.cli.status",
        "taskscaler.__main__": "from taskscaler.cli import main",
        "taskscaler.core.slots": "from .settings import Settings\nfrom datetime import timedelta",
    }
    assert [c for name, text in samples.items() for c in wrong_arrows(name, ast.parse(text))] == []


def test_impurities_are_noticed() -> None:
    """A clock without an import of its own and a file give complaints."""
    assert len(impurities(ast.parse("datetime.now(UTC)\nopen('x')\nf(datetime.max)"))) == 2


def test_undeclared_distributions_are_noticed() -> None:
    """A package that is installed but not declared gives a complaint; a declared one does not."""
    assert undeclared(["pytest", "anyio.abc", "os"], {"anyio"}) == {"pytest"}


def test_linter_knows_the_core(root: Path) -> None:
    """The linter tells an author of the core that a clock is forbidden there."""
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename"]
    name = "taskscaler/src/taskscaler/core/sample.py"
    sample = "import time\n\nSTARTED = time.monotonic()\n"
    linted = subprocess.run(
        [*command, name], input=sample, cwd=root, capture_output=True, text=True, check=False
    )
    assert f"{name}:1:8: TID251" in linted.stdout
