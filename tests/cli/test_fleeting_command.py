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

# What no command may import that only looks at metadata.
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
    """What only helps or looks at metadata imports no library that costs start-up time."""
    modules = set(_run(*args).stderr.split())
    assert "fleeting.cli" in modules
    assert modules.isdisjoint(HEAVY)


def test_version_is_that_of_the_distribution() -> None:
    """The version that the command shows is the one in the code."""
    assert _run("--version").stdout == f"fleeting {__version__}\n"


def test_list_shows_each_plugin() -> None:
    """The table has a line for each installed plugin, below a heading."""
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
    """The same comes as JSON for scripts."""
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
    """The help lists every command, with the first sentence of the command's own help."""
    overview = CliRunner().invoke(_command_group, ["--help"]).output
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", overview, re.MULTILINE)
        assert CliRunner().invoke(_command_group, [name, "--help"]).exit_code == 0


def test_unknown_command_is_wrong_input() -> None:
    """A command that does not exist is named, and the exit code says that the input was wrong."""
    result = CliRunner().invoke(_command_group, ["lst"])
    assert result.exit_code == 2
    assert "'lst'" in result.output


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
def test_a_full_disk_below_the_output_is_one_sentence() -> None:
    """What cannot be written is said once, with the exit code of a failing machine."""
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
