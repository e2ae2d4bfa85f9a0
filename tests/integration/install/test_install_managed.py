"""Environments of pipx and `uv tool`, which record what belongs in them."""

from __future__ import annotations

import json
import subprocess
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from install_world import TOOLS, World
from made_up_plugins import make_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from made_up_plugins import Index

pytestmark = pytest.mark.long


def tool(world: World, *arguments: str | Path) -> str:
    """Run pipx or uv as its user would."""
    return subprocess.run(
        [TOOLS / arguments[0], *arguments[1:]],
        env=world.environ,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


@pytest.fixture
def managed(tmp_path: Path) -> World:
    """Return a home in which pipx and uv keep their environments; the caches stay shared."""
    world = World("uv", tmp_path, tmp_path / "home")
    world.home.mkdir()
    places = {
        "PIPX_HOME": "pipx",
        "PIPX_BIN_DIR": "bin",
        "UV_TOOL_DIR": "tools",
        "UV_TOOL_BIN_DIR": "bin",
    }
    cache = subprocess.check_output([TOOLS / "uv", "cache", "dir"], text=True).strip()
    world.variables = {name: str(tmp_path / place) for name, place in places.items()}
    world.variables |= {"UV_CACHE_DIR": cache}
    return world


@pytest.fixture
def index_with_faults(index: Index) -> Index:
    """Return the index with a plugin that registers another name than its own."""
    make_wheel(index.folder, "fleeting-plugin-other", plugin="different")
    return index


def test_pipx(managed: World, index_with_faults: Index, fleeting_wheel: Path) -> None:
    """A plugin is injected, so that pipx knows it, and removed in the same way."""
    tool(managed, "pipx", "install", fleeting_wheel)
    world = replace(managed, prefix=managed.prefix / "pipx/venvs/fleeting")
    place = f"--extra-index-url={index_with_faults.url}"
    world.run("install", place, "good:1")
    assert world.plugins() == {"good": "1.5.0"}
    assert injected(world) == {"fleeting-plugin-good": "fleeting-plugin-good==1.*"}
    world.run("install", place, "other", code=1)
    assert world.plugins() == {"good": "1.5.0"}
    assert set(injected(world)) == {"fleeting-plugin-good"}
    world.run("install", place, "--upgrade", "good")
    assert world.plugins() == {"good": "2.0.0"}
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {}
    assert injected(world) == {}


def injected(world: World) -> dict[str, str]:
    """Return what pipx has injected, and the requirement of each."""
    listed = json.loads(tool(world, "pipx", "list", "--json"))
    packages = listed["venvs"]["fleeting"]["metadata"]["injected_packages"]
    return {name: package["package_or_url"] for name, package in packages.items()}


def test_uv_tool(managed: World, index_with_faults: Index, fleeting_wheel: Path) -> None:
    """The receipt keeps every plugin, so that neither another one nor an upgrade removes it."""
    tool(managed, "uv", "tool", "install", fleeting_wheel)
    world = replace(managed, prefix=managed.prefix / "tools/fleeting")
    place = f"--extra-index-url={index_with_faults.url}"
    world.run("install", place, "good:1.0")
    world.run("install", place, "needy")
    assert world.plugins() == {"good": "1.0.0", "needy": "1.0.0"}
    expected = {
        "fleeting": "",
        "fleeting-plugin-good": "==1.0.*",
        "fleeting-plugin-needy": "",
    }
    assert requirements(world) == expected
    world.run("install", place, "other", code=1)
    assert world.plugins() == {"good": "1.0.0", "needy": "1.0.0"}
    assert requirements(world) == expected
    world.run("install", place, "--upgrade", "good:1")
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}
    tool(world, "uv", "tool", "upgrade", "fleeting")
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {"needy": "1.0.0"}
    assert set(requirements(world)) == {"fleeting", "fleeting-plugin-needy"}


def requirements(world: World) -> dict[str, str]:
    """Return the requirements in the receipt of `uv tool`."""
    receipt = tomllib.loads((world.prefix / "uv-receipt.toml").read_text())
    return {entry["name"]: entry.get("specifier", "") for entry in receipt["tool"]["requirements"]}
