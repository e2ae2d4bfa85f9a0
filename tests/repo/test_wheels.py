"""Users get complete distributions: each of them alone, and the product without our tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PROJECTS = sorted(
    path.parent
    for pattern in ("fleeting", "taskscaler", "plugins/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)
# Imports each module that needs no extra, and prints which could not be imported, and why.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
broken = {}
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    parts = module.name.split(".")
    if parts[-1] == "__main__" or parts[1] == "testing":
        continue
    try:
        importlib.import_module(module.name)
    except Exception as error:
        broken[module.name] = repr(error)
print(json.dumps(broken))
"""


def uv(*arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run uv and return its output; its errors go to those of the test."""
    return subprocess.run(
        [sys.executable, "-m", "uv", *arguments, "--no-progress"],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def lacking(names: set[str], package: str) -> list[str]:
    """Return the parts that a wheel should have and does not have."""
    has_licence = any(re.fullmatch(r"[^/]+\.dist-info/licenses/LICENSE", name) for name in names)
    wanted = [f"{package}/__init__.py", f"{package}/py.typed"]
    return [*(name for name in wanted if name not in names), *(["LICENSE"] * (not has_licence))]


def requirement_names(requirements: list[Any]) -> set[str]:
    """Return the normalized names in a list of requirements, without versions and extras."""
    texts = [text for text in requirements if isinstance(text, str)]
    return {re.split(r"[^A-Za-z0-9._-]", text)[0].lower().replace("_", "-") for text in texts}


def package_of(project: Path) -> str:
    """Return the name under which the distribution of a project is imported."""
    return project.name.replace("-", "_")


def build(sources: Path, kind: str, folder: Path) -> Path:
    """Build a project's `wheel` or `sdist` into an empty folder, as `uv build` would."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.check_output(command, cwd=sources, stderr=subprocess.PIPE)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheel of every project from its sources; return them by project."""
    folder = tmp_path_factory.mktemp("wheels")
    return {project.name: build(project, "wheel", folder / project.name) for project in PROJECTS}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_wheel_is_whole(project: Path, wheels: dict[str, Path]) -> None:
    """The wheel has its package, the mark that it is typed, and the licence."""
    assert lacking(set(contents(wheels[project.name])), package_of(project)) == []


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_source_distribution_gives_the_same_wheel(
    project: Path, wheels: dict[str, Path], tmp_path: Path
) -> None:
    """A wheel that is built from the source distribution has the same files, byte for byte."""
    with tarfile.open(build(project, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (sources,) = (tmp_path / "sources").iterdir()
    rebuilt = build(sources, "wheel", tmp_path / "wheel")
    assert contents(rebuilt) == contents(wheels[project.name])


@pytest.mark.long
@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_wheel_installs_alone(project: Path, wheels: dict[str, Path], tmp_path: Path) -> None:
    """In a clean environment, with only what it requires, all its modules import."""
    venv = tmp_path / "venv"
    uv("venv", "--python", sys.executable, venv)
    python = venv / "bin" / "python"
    # The siblings are offered, not installed: a distribution that needs one has to require it.
    siblings = tmp_path / "siblings.txt"
    siblings.write_text("".join(f"{p.name} @ {wheels[p.name].as_uri()}\n" for p in PROJECTS))
    uv("pip", "install", "--python", python, "--constraint", siblings, wheels[project.name])
    uv("pip", "check", "--python", python)
    output = subprocess.check_output(
        [python, "-I", "-c", IMPORT_ALL, package_of(project)], cwd=tmp_path, text=True
    )
    assert json.loads(output) == {}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_commands_exist(project: Path) -> None:
    """Each command of a distribution starts and prints its version."""
    scripts = tomllib.loads((project / "pyproject.toml").read_text())["project"].get("scripts", {})
    for script in scripts:
        version = subprocess.check_output(
            [Path(sys.executable).parent / script, "--version"], text=True
        )
        assert re.search(r"\d+\.\d+", version)


@pytest.mark.long
def test_product_has_no_tool_and_no_sdk(tmp_path: Path) -> None:
    """Without the development group, no tool and no requirement of a plugin is installed."""
    venv = tmp_path / "venv"
    uv("sync", "--no-dev", env={"UV_PROJECT_ENVIRONMENT": str(venv), "VIRTUAL_ENV": ""})
    listing = json.loads(uv("pip", "list", "--python", venv / "bin" / "python", "--format=json"))
    installed = {package["name"] for package in listing}
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())
    product, foreign = set[str](), requirement_names(workspace["dependency-groups"]["dev"])
    for project in PROJECTS:
        table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        required = requirement_names([table["name"], *table.get("dependencies", [])])
        if project.parent == ROOT:
            product |= required
        else:
            foreign |= required
    assert product <= installed
    assert installed & (foreign - product) == set()


def test_lacking_parts_are_noticed() -> None:
    """A wheel without the mark, the package or the licence is not whole."""
    assert lacking({"a/x.py", "a-1.dist-info/licenses/COPYING"}, "a") == [
        "a/__init__.py",
        "a/py.typed",
        "LICENSE",
    ]
    assert lacking({"a/__init__.py", "a/py.typed", "a-1.dist-info/licenses/LICENSE"}, "a") == []
