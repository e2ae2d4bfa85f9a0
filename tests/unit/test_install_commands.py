"""The command lines of the four installers, argument by argument."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fleeting.errors import InstallError
from fleeting.install.commands import (
    Change,
    Sources,
    change,
    child_environment,
    receipt_requirements,
    removal,
    resolution,
    shown,
    trial,
)
from fleeting.install.environment import Environment, Facts, Keeper

FACTS = Facts(
    prefix=Path("/e/fleeting"),
    python=Path("/e/bin/python"),
    site=Path("/e/site"),
    scripts=Path("/e/bin"),
    is_virtual=True,
    uv="/bin/uv",
    pipx="/bin/pipx",
)
PIP = Environment(FACTS, Keeper.NOBODY, uses_pip=True)
UV = Environment(FACTS, Keeper.NOBODY, uses_pip=False)
PIPX = Environment(FACTS, Keeper.PIPX, uses_pip=True)
TOOL = Environment(FACTS, Keeper.UV_TOOL, uses_pip=False)
CHANGE = Change(exact=("p==1.5",), asked=("p==1.*",), kept=("fleeting==1.0.0",), names=("p",))
SOURCES = Sources(
    index_url="https://i.example/simple",
    extra_index_urls=("https://j.example/simple",),
    find_links=("./wheels",),
    no_index=True,
    pre=True,
)
PLACES = [
    "--index-url=https://i.example/simple",
    "--extra-index-url=https://j.example/simple",
    "--find-links=./wheels",
    "--no-index",
]
# As `uv tool` writes it.
RECEIPT = tomllib.loads("""
requirements = [
    { name = "fleeting", extras = ["testing"], specifier = ">=1" },
    { name = "P", specifier = "==1.0.*" },
    { name = "q", path = "/w/q-1-py3-none-any.whl" },
    { name = "r", git = "https://x.example/r?rev=v1", marker = "python_full_version >= '3.11'" },
    { name = "s", directory = "/src/s" },
]
python = "3.12"
[options]
"index-url" = "https://k.example/simple"
find-links = ["file:///w"]
index = [{ name = "l", url = "https://l.example/simple" }]
no-build = true
no-binary = false
""")


def test_pip() -> None:
    """Pip is asked with the Python of the environment, never with a pip.py of this folder."""
    start = ["/e/bin/python", "-P", "-m", "pip"]
    asked = resolution(PIP, ["p"], ["f==1"], SOURCES, report=Path("/s/r.json"), upgrade=["p"])
    assert asked == [
        *(*start, "install", "--dry-run", "--report=/s/r.json", "--upgrade", *PLACES, "--pre"),
        *("f==1", "p"),
    ]
    tried = trial(PIP, ["p==1.5"], Sources(), Path("/s/t"))
    assert tried == [*start, "install", "--target=/s/t", "--no-deps", "--no-compile", "p==1.5"]
    assert change(PIP, CHANGE, Sources()) == [*start, "install", "fleeting==1.0.0", "p==1.5"]
    assert removal(PIP, "p") == [*start, "uninstall", "--yes", "p"]


def test_uv() -> None:
    """Uv is told which Python it is about, and which distributions may be newer."""
    python = "--python=/e/bin/python"
    asked = resolution(UV, ["p"], [], Sources(), report=Path("/s/r.json"), upgrade=["p"])
    assert asked == ["/bin/uv", "pip", "install", python, "--dry-run", "--upgrade-package=p", "p"]
    hashed = Sources(requirement_files=("h.txt",), require_hashes=True)
    assert change(UV, Change(exact=()), hashed) == [
        *("/bin/uv", "pip", "install", python, "--require-hashes", "--requirement=h.txt")
    ]
    assert removal(UV, "p") == ["/bin/uv", "pip", "uninstall", python, "p"]


def test_pipx() -> None:
    """Pipx is given what was asked for, as it remembers that; what is there is replaced if told."""
    assert change(PIPX, CHANGE, Sources()) == ["/bin/pipx", "inject", "fleeting", "p==1.*"]
    assert change(PIPX, replace(CHANGE, upgrade=("p",)), Sources(find_links=("a b",))) == [
        *("/bin/pipx", "inject", "fleeting", "p==1.*"),
        *("--pip-args='--find-links=a b' --upgrade", "--force"),
    ]
    assert removal(PIPX, "p") == ["/bin/pipx", "uninject", "--leave-deps", "fleeting", "p"]


def test_uv_tool() -> None:
    """`uv tool` is given all that its receipt has, and what is asked of a plugin now."""
    command = change(TOOL, replace(CHANGE, receipt=RECEIPT), Sources(find_links=("./wheels",)))
    assert command == [
        *("/bin/uv", "tool", "install"),
        *("--index-url=https://k.example/simple", "--find-links=file:///w"),
        *("--index=https://l.example/simple", "--no-build", "--find-links=./wheels"),
        *("--python=3.12", "fleeting[testing]>=1", "--with=q @ file:///w/q-1-py3-none-any.whl"),
        "--with=r @ git+https://x.example/r?rev=v1 ; python_full_version >= '3.11'",
        *("--with=s @ file:///src/s", "--with=p==1.*"),
    ]
    left = removal(TOOL, "p", RECEIPT)
    assert "--with=s @ file:///src/s" in left
    assert not any("==1.0.*" in argument for argument in left)


def test_what_a_command_line_cannot_repeat_is_refused() -> None:
    """A receipt with constraints is left alone, and so are files of hashes where none are kept."""
    with pytest.raises(InstallError, match="with constraints, which would be lost"):
        receipt_requirements({**RECEIPT, "constraints": [{"name": "x"}]})
    for environment in (PIPX, TOOL):
        with pytest.raises(InstallError, match="no file of hashes"):
            change(environment, CHANGE, Sources(requirement_files=("h.txt",)))


def test_environment_of_an_installer(tmp_path: Path) -> None:
    """The user's indexes and proxies stay; what would make something else of it is left out."""
    environ = {
        "PIP_INDEX_URL": "https://i.example",
        "HTTPS_PROXY": "http://p",
        "PIP_TARGET": "/x",
        "UV_SYSTEM_PYTHON": "1",
    }
    made = child_environment(environ, tmp_path / "netrc")
    assert made["PIP_INDEX_URL"] == "https://i.example"
    assert made["HTTPS_PROXY"] == "http://p"
    assert made["NETRC"] == str(tmp_path / "netrc")
    assert made["PIP_NO_INPUT"] == "1"
    assert not {"PIP_TARGET", "UV_SYSTEM_PYTHON"} & set(made)
    assert "NETRC" not in child_environment({}, None)


def test_shown_command_can_be_pasted() -> None:
    """What a shell would take apart is quoted."""
    assert shown(["uv", "a>=1", "b c"]) == "uv 'a>=1' 'b c'"
