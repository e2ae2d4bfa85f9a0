"""Who installs is decided by what can be seen of an environment."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fleeting.errors import InstallError
from fleeting.install.environment import Facts, Keeper, choose_installer, look_around

VENV = Facts(
    prefix=Path("/venv"),
    python=Path("/venv/bin/python"),
    site=Path("/venv/lib/site-packages"),
    scripts=Path("/venv/bin"),
    is_virtual=True,
)
MANAGED = frozenset({"EXTERNALLY-MANAGED"})
PIPX = frozenset({"pipx_metadata.json"})
TOOL = frozenset({"uv-receipt.toml"})


@pytest.mark.parametrize(
    ("facts", "keeper", "uses_pip"),
    [
        (replace(VENV, has_pip=True), Keeper.NOBODY, True),
        (replace(VENV, has_pip=True, uv="/bin/uv"), Keeper.NOBODY, True),
        (replace(VENV, uv="/bin/uv"), Keeper.NOBODY, False),
        (replace(VENV, uv="/bin/uv", files=MANAGED), Keeper.NOBODY, False),
        (replace(VENV, has_pip=True, is_virtual=False), Keeper.NOBODY, True),
        (replace(VENV, has_pip=True, pipx="/bin/pipx", files=PIPX), Keeper.PIPX, True),
        (replace(VENV, uv="/bin/uv", pipx="/bin/pipx", files=PIPX), Keeper.PIPX, False),
        (replace(VENV, uv="/bin/uv", has_pip=True, files=TOOL), Keeper.UV_TOOL, False),
    ],
)
def test_installer_is_chosen(facts: Facts, keeper: Keeper, *, uses_pip: bool) -> None:
    """What made the environment is asked to change it; below that it is pip, where there is one."""
    environment = choose_installer(facts)
    assert (environment.keeper, environment.uses_pip) == (keeper, uses_pip)


@pytest.mark.parametrize(
    ("facts", "reason", "retryable"),
    [
        (replace(VENV, is_archive=True), "runs out of an archive", False),
        (
            replace(VENV, is_virtual=False, has_pip=True, files=MANAGED),
            "belongs to the operating system",
            False,
        ),
        (replace(VENV, has_pip=True, is_writable=False), "cannot be written to", True),
        (replace(VENV, has_pip=True, files=PIPX), "was made by pipx, which is not", False),
        (replace(VENV, has_pip=True, files=TOOL), "was made by uv tool, which is not", False),
        (VENV, "has no pip, and uv is not on the PATH", False),
    ],
)
def test_nobody_installs(facts: Facts, reason: str, *, retryable: bool) -> None:
    """Where nothing can or may be installed, a sentence says why and what else to do."""
    with pytest.raises(InstallError, match=reason) as caught:
        choose_installer(facts)
    assert caught.value.retryable is retryable


def test_facts_of_this_environment() -> None:
    """What is seen of the environment of these tests is true."""
    facts = look_around()
    assert facts.prefix == Path(sys.prefix)
    assert facts.is_virtual is (sys.prefix != sys.base_prefix)
    assert (facts.site / "click").is_dir()
    assert not facts.is_archive
    assert Path(facts.uv).is_file()
