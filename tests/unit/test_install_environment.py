"""The files and programs of an environment decide which installer changes it."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from fleeting.errors import InstallError
from fleeting.install.environment import (
    Environment,
    Installer,
    choose_installer,
    installed_distributions,
    observe,
)

VENV = Environment(prefix=Path("/venv"), python=Path("/venv/bin/python"))
PIPX = frozenset({"pipx_metadata.json"})
TOOL = frozenset({"uv-receipt.toml"})


@pytest.mark.parametrize(
    ("environment", "installer"),
    [
        (replace(VENV, has_pip=True), Installer.PIP),
        (replace(VENV, has_pip=True, uv="/bin/uv"), Installer.PIP),
        (replace(VENV, uv="/bin/uv"), Installer.UV),
        (replace(VENV, has_pip=True, pipx="/bin/pipx", files=PIPX), Installer.PIPX),
        (replace(VENV, uv="/bin/uv", pipx="/bin/pipx", files=PIPX), Installer.PIPX),
        (replace(VENV, uv="/bin/uv", has_pip=True, files=TOOL), Installer.UV_TOOL),
    ],
)
def test_installer_is_chosen(environment: Environment, installer: Installer) -> None:
    """The tool that made the environment changes it, or else pip, or else uv."""
    assert choose_installer(environment) is installer


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        (replace(VENV, has_pip=True, files=PIPX), "was made by pipx, and pipx was not found"),
        (replace(VENV, has_pip=True, files=TOOL), "was made by uv tool, and uv was not found"),
        (VENV, "has no pip, and uv was not found; add uv to the PATH"),
    ],
)
def test_installer_is_missing(environment: Environment, reason: str) -> None:
    """Without the installer that the environment wants, a sentence says what to add."""
    with pytest.raises(InstallError, match=reason) as caught:
        choose_installer(environment)
    assert caught.value.retryable


def test_this_environment() -> None:
    """The environment of these tests is observed as it is."""
    environment = observe()
    assert environment.prefix == Path(sys.prefix)
    assert "pyvenv.cfg" in environment.files
    assert Path(environment.uv).is_file()


def test_installed_distributions() -> None:
    """The versions are those that the standard library reads from the metadata."""
    versions = {name: one.version for name, one in installed_distributions().items()}
    assert {"click", "fleeting"} <= versions.keys()
    assert versions == {name: metadata.version(name) for name in versions}
