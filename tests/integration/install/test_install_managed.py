"""Environments that pipx and `uv tool` look after remember what was put into them."""

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


def test_pipx(managed: World, index: Index, fleeting_wheel: Path) -> None:
    """A plugin is injected, so that pipx knows it, and removed likewise."""
    tool(managed, "pipx", "install", fleeting_wheel)
    world = replace(managed, prefix=managed.prefix / "pipx/venvs/fleeting")
    place = f"--extra-index-url={index.url}"
    line = world.run("install", "--dry-run", place, "good:1").stdout
    assert f"pipx inject fleeting fleeting-plugin-good==1.* --pip-args={place}" in line.replace(
        "'", ""
    )
    world.run("install", place, "good:1")
    assert world.plugins() == {"good": "1.5.0"}
    listed = json.loads(tool(world, "pipx", "list", "--json"))
    injected = listed["venvs"]["fleeting"]["metadata"]["injected_packages"]
    assert injected["fleeting-plugin-good"]["package_or_url"] == "fleeting-plugin-good==1.*"
    world.run("install", place, "--upgrade", "good")
    assert world.plugins() == {"good": "2.0.0"}
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {}
    assert "fleeting-plugin-good" not in tool(world, "pipx", "list", "--include-injected")


def test_uv_tool(managed: World, index: Index, fleeting_wheel: Path) -> None:
    """The receipt keeps every plugin, so that neither another one nor an upgrade drops it."""
    tool(managed, "uv", "tool", "install", fleeting_wheel)
    world = replace(managed, prefix=managed.prefix / "tools/fleeting")
    place = f"--extra-index-url={index.url}"
    world.run("install", place, "good:1.0")
    by_hand = make_wheel(managed.home, "fleeting-plugin-stray")
    python = world.prefix / "bin" / "python"
    tool(world, "uv", "pip", "install", "--python", python, "--no-index", by_hand)
    world.run("uninstall", "stray", "--yes")
    assert world.plugins() == {"good": "1.0.0"}
    tool(world, "uv", "pip", "install", "--python", python, "--no-index", by_hand)
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {"stray": "1.0.0"}
    world.run("install", place, "good:1.0")
    world.run("install", place, f"--find-links={managed.home}", "good:1.0.0", "needy")
    assert "stray" in world.plugins()
    assert "fleeting-plugin-stray" in requirements(world), "uv knows it now"
    world.run("uninstall", "stray", "--yes")
    world.run("install", place, "needy")
    assert world.plugins() == {"good": "1.0.0", "needy": "1.0.0"}
    assert requirements(world) == {
        "fleeting": "",
        "fleeting-plugin-good": "==1.0.*",
        "fleeting-plugin-needy": "",
    }
    world.run("install", place, "good:1")
    assert world.plugins() == {"good": "1.0.0", "needy": "1.0.0"}, "it fitted already"
    world.run("install", place, "--upgrade", "good:1")
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}
    tool(world, "uv", "tool", "upgrade", "fleeting")
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}
    world.run("install", place, "none", code=1)
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {"needy": "1.0.0"}
    assert set(requirements(world)) == {"fleeting", "fleeting-plugin-needy"}


def requirements(world: World) -> dict[str, str]:
    """Return what the receipt of `uv tool` says."""
    receipt = tomllib.loads((world.prefix / "uv-receipt.toml").read_text())
    return {entry["name"]: entry.get("specifier", "") for entry in receipt["tool"]["requirements"]}
