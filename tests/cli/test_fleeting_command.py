from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleeting import __version__
from fleeting._registry import Registry
from fleeting.cli import COMMANDS, _command_group

# Libraries that help and metadata commands must not import.
HEAVY = [
    "aiohttp",
    "anyio",
    "asyncio",
    "asyncssh",
    "msgspec",
    "pluggy",
    "rich",
    "typing_extensions",
]

FULL = Path("/dev/full")

RUN = """
import sys
from fleeting.cli import main
try:
    main()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "args",
    [
        ["--version"],
        ["list"],
        ["list", "--json"],
        ["--help"],
        ["check", "--help"],
        ["group", "--help"],
        ["group", "run", "--help"],
    ],
)
def test_start_imports_nothing_heavy(args: list[str]) -> None:
    """Help and metadata commands import no library that slows down their start."""
    modules = set(_run(*args).stderr.split())
    assert "fleeting.cli" in modules
    assert modules.isdisjoint(HEAVY)


def test_version() -> None:
    """`--version` prints the version of the package."""
    assert _run("--version").stdout == f"fleeting {__version__}\n"


def test_list_shows_each_plugin() -> None:
    """The table has a heading and a line for each installed plugin."""
    heading, *lines = CliRunner().invoke(_command_group, ["list"]).output.splitlines()
    assert heading.split() == ["NAME", "KIND", "VERSION", "DISTRIBUTION"]
    kinds = {"provider": Registry().providers(), "connector": Registry().connectors()}
    assert [line.split() for line in lines] == [
        [entry.name, kind, entry.version, entry.distribution]
        for kind, entries in kinds.items()
        for entry in entries
    ]
    assert ["local", "provider", __version__, "fleeting"] in [line.split() for line in lines]


def test_list_as_json() -> None:
    """`--json` prints the plugins as JSON."""
    shown = json.loads(CliRunner().invoke(_command_group, ["list", "--json"]).output)
    assert {
        "name": "local",
        "kind": "provider",
        "version": __version__,
        "distribution": "fleeting",
        "status": "installed",
        "problem": None,
    } in shown


def test_help_names_every_command() -> None:
    """The help lists every command with its summary, and every command has help."""
    overview = CliRunner().invoke(_command_group, ["--help"]).output
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", overview, re.MULTILINE)
        assert CliRunner().invoke(_command_group, [name, "--help"]).exit_code == 0


def test_unknown_command_is_invalid_input() -> None:
    """An unknown command is named, with exit code 2."""
    result = CliRunner().invoke(_command_group, ["lst"])
    assert result.exit_code == 2
    assert "'lst'" in result.output


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_full_disk_is_one_message() -> None:
    """Output that cannot be written is one message, with exit code 3."""
    with FULL.open("wb") as full:
        completed = subprocess.run(
            [sys.executable, "-c", "from fleeting.cli import main; main()", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert completed.returncode == 3
    assert completed.stderr.startswith("error: the system refused: ")
    assert completed.stderr.count("\n") == 1
