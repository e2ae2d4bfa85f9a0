"""Real environments, made by venv and by uv, with fleeting in them; and an index on loopback."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from install_world import ROOT, World, uv
from made_up_plugins import Index, make_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def fleeting_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of fleeting."""
    folder = tmp_path_factory.mktemp("fleeting-wheel")
    uv("build", "--wheel", "--no-build-isolation", "--out-dir", folder, ROOT / "fleeting")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def bundled_pip() -> Path:
    """Return the wheel of the pip that `python -m venv` would install, only slower."""
    import ensurepip

    return next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))


@pytest.fixture(scope="session")
def templates(
    tmp_path_factory: pytest.TempPathFactory, fleeting_wheel: Path, bundled_pip: Path
) -> dict[str, Path]:
    """Make an environment of each kind, of which each test gets a copy."""
    folder = tmp_path_factory.mktemp("templates")
    made = {"pip": folder / "pip", "uv": folder / "uv"}
    venv.create(made["pip"], symlinks=True)
    uv("venv", "--python", sys.executable, made["uv"])
    for kind, prefix in made.items():
        wheels = [fleeting_wheel, *([bundled_pip] if kind == "pip" else [])]
        uv("pip", "install", "--compile-bytecode", "--python", prefix / "bin" / "python", *wheels)
    return made


def copy_environment(template: Path, prefix: Path) -> None:
    """Give an environment a second place: its files cost nothing, its command knows where it is."""
    shutil.copytree(template, prefix, symlinks=True, copy_function=os.link)
    script = prefix / "bin" / "fleeting"
    text = script.read_text().replace(str(template), str(prefix))
    script.unlink()
    script.write_text(text)
    script.chmod(0o755)


@pytest.fixture(params=["pip", "uv"])
def world(request: pytest.FixtureRequest, tmp_path: Path, templates: dict[str, Path]) -> World:
    """Return a fresh environment, once with pip and once without."""
    world = World(request.param, tmp_path / "venv", tmp_path / "home")
    world.home.mkdir()
    copy_environment(templates[world.kind], world.prefix)
    return world


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Yield an index that has three versions of one plugin, and a few others."""
    folder = tmp_path / "index"
    for version in ("1.0.0", "1.5.0", "2.0.0"):
        make_wheel(folder, "fleeting-plugin-good", version)
    make_wheel(folder, "made-up-helper", plugin="")
    make_wheel(folder, "fleeting-plugin-needy", requires=["made-up-helper>=1"])
    with Index(folder) as index:
        yield index
