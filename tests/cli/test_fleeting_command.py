from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleeting import __version__
from fleeting._registry import Registry
from fleeting.cli._commands import COMMANDS, command_group

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
    heading, *lines = CliRunner().invoke(command_group, ["list"]).output.splitlines()
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
    shown = json.loads(CliRunner().invoke(command_group, ["list", "--json"]).output)
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
    overview = CliRunner().invoke(command_group, ["--help"]).output
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", overview, re.MULTILINE)
        assert CliRunner().invoke(command_group, [name, "--help"]).exit_code == 0


def test_unknown_command_is_invalid_input() -> None:
    """An unknown command is named, with exit code 2."""
    result = CliRunner().invoke(command_group, ["lst"])
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
    assert completed.stderr == ("error: cannot write to standard output: no space left on device\n")


@pytest.mark.parametrize("name", ["fleeting", "taskscaler"])
def test_interrupted_import_is_one_word(name: str, tmp_path: Path) -> None:
    """Ctrl-C ends a command with one word even while it imports its first module."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    completed = subprocess.run(
        [sys.executable, "-c", f"from {name}.cli import main; main()", "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (130, "interrupted\n")


def test_no_words_show_the_help() -> None:
    """A command without words shows its help on standard error; that is not an error message."""
    completed = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 2
    assert completed.stderr.startswith("Usage: fleeting [OPTIONS] COMMAND")
