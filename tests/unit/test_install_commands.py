"""The command lines of the four installers, argument by argument."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fleeting.errors import InstallError
from fleeting.install.commands import Commands, shown
from fleeting.install.environment import Environment, Installed, Installer
from fleeting.install.requests import Request

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
ENVIRONMENT = Environment(
    prefix=Path("/e/fleeting"), python=Path("/e/bin/python"), uv="/bin/uv", pipx="/bin/pipx"
)
PIP, UV, PIPX, TOOL = (
    Commands(ENVIRONMENT, installer, RECEIPT if installer is Installer.UV_TOOL else {})
    for installer in Installer
)
WANTED = [Request("p==1.*", "p", "p")]
KEPT = {"fleeting": "1.0.0", "p": "0.9"}
ONE, TWO = Installed("1"), Installed("2")
BEFORE, AFTER = {"a": ONE, "p": ONE}, {"a": ONE, "b": ONE, "p": TWO}


@pytest.mark.parametrize("upgrade", [False, True])
def test_pip(*, upgrade: bool) -> None:
    """Pip runs with the Python of the environment, and never from the working directory."""
    start = ["/e/bin/python", "-P", "-m", "pip"]
    assert PIP.install(WANTED, ["--pre"], upgrade=upgrade, kept=KEPT) == [
        *(*start, "install", *["--upgrade"] * upgrade, "--pre", "fleeting==1.0.0", "p==1.*")
    ]
    assert PIP.remove("p") == [*start, "uninstall", "--yes", "p"]
    assert PIP.undo(BEFORE, AFTER, ["--no-index"]) == [
        [*start, "uninstall", "--yes", "b"],
        [*start, "install", "--no-index", "--force-reinstall", "--no-deps", "p==1"],
    ]


@pytest.mark.parametrize("upgrade", [False, True])
def test_uv(*, upgrade: bool) -> None:
    """Uv is told its Python, and which distributions may be newer."""
    python = "--python=/e/bin/python"
    assert UV.install(WANTED, [], upgrade=upgrade, kept=KEPT) == [
        *("/bin/uv", "pip", "install", python),
        *(*["--upgrade-package=p"] * upgrade, "fleeting==1.0.0", "p==1.*"),
    ]
    assert UV.remove("p") == ["/bin/uv", "pip", "uninstall", python, "p"]
    assert UV.undo(AFTER, BEFORE, []) == [
        ["/bin/uv", "pip", "install", python, "--force-reinstall", "--no-deps", "b==1", "p==2"]
    ]
    assert UV.undo(BEFORE, BEFORE, []) == []


def test_undo_of_another_build(tmp_path: Path) -> None:
    """A build is fetched again from its place, with a command of its own."""
    mine = Installed("1", origin=str(tmp_path), files="x")
    url = Installed("1", origin="https://x.example/p.whl", files="y")
    start = ["/bin/uv", "pip", "install", "--python=/e/bin/python", "--force-reinstall"]
    assert UV.undo({"p": mine}, {"p": url}, []) == [[*start, "--no-deps", str(tmp_path)]]
    assert UV.undo({"p": url}, {"p": mine}, []) == [[*start, "--no-deps", url.origin]]
    assert UV.undo({"p": ONE}, {"p": url}, []) == [[*start, "--no-deps", "p==1"]]
    assert UV.undo({"p": mine}, {"p": mine._replace(written_ns=1)}, []) == []
    assert UV.undo({"a": ONE, "p": mine}, {"a": TWO, "p": mine._replace(files="new")}, []) == [
        [*start, "--no-deps", "a==1"],
        [*start, "--no-deps", str(tmp_path)],
    ]


def test_pipx() -> None:
    """Pipx records what it injects; a version that is there is replaced."""
    start = ["/bin/pipx", "inject", "--force", "fleeting", "p==1.*"]
    assert PIPX.install(WANTED, [], upgrade=False, kept=KEPT) == start
    assert PIPX.install(WANTED, ["--find-links=a b"], upgrade=True, kept=KEPT) == [
        *(*start, "--pip-args=--upgrade '--find-links=a b'")
    ]
    assert PIPX.remove("p") == ["/bin/pipx", "uninject", "--leave-deps", "fleeting", "p"]
    assert PIPX.undo(BEFORE, AFTER, [])[0] == ["/bin/pipx", "runpip", "fleeting", "uninstall", "b"]


def test_uv_tool() -> None:
    """`uv tool` gets all that its receipt has, and the new requirement of a plugin."""
    assert TOOL.install(WANTED, ["--find-links=./wheels"], upgrade=False, kept=KEPT) == [
        *("/bin/uv", "tool", "install", "--python=3.12"),
        *("--index-url=https://k.example/simple", "--find-links=file:///w"),
        *("--index=https://l.example/simple", "--no-build", "--find-links=./wheels"),
        *("fleeting[testing]>=1", "--with=q @ file:///w/q-1-py3-none-any.whl"),
        "--with=r @ git+https://x.example/r?rev=v1 ; python_full_version >= '3.11'",
        *("--with=s @ file:///src/s", "--with=p==1.*"),
    ]
    left = TOOL.remove("p")
    assert "--with=s @ file:///src/s" in left
    assert not any("==1.0.*" in argument for argument in left)
    python = "--python=/e/bin/python"
    assert TOOL.undo(BEFORE, AFTER, [])[0] == ["/bin/uv", "pip", "uninstall", python, "b"]


def test_receipt_that_a_command_line_cannot_repeat() -> None:
    """A receipt with constraints is refused, because they would be lost."""
    with pytest.raises(InstallError, match="with constraints, which this command would drop"):
        replace(TOOL, receipt={**RECEIPT, "constraints": [{"name": "x"}]}).remove("p")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a>=1", "'a>=1'"),
        ("https://ci:p@ss@x.example/y@v1", "https://****@x.example/y@v1"),
        ("--index-url=https://token@x.example", "--index-url=https://****@x.example"),
        ("git+https://a:b@x.example/r.git@v1", "git+https://****@x.example/r.git@v1"),
        (
            "https://x.example/w.whl?sig=a%2Bb&x=1#sha256=0",
            "'https://x.example/w.whl?****#sha256=0'",
        ),
        ("--pip-args='--index-url=https://a:b@x.example'", "https://****@x.example"),
    ],
)
def test_shown_command(argument: str, expected: str) -> None:
    """A command is quoted for a shell, without the secrets in URLs."""
    assert expected in shown(["uv", argument])
