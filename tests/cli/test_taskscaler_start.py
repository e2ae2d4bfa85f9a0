"""The command starts fast: modules that its help does not need are not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import taskscaler

HEAVY = ("aiohttp", "anyio", "asyncio", "asyncssh", "msgspec", "pluggy", "rich")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["run", "--help"]])
def test_help_imports_only_click(words: list[str]) -> None:
    """Help and version import no library that is slow to import."""
    code = (
        "import sys\n"
        f"sys.argv = ['taskscaler', *{words!r}]\n"
        "from taskscaler.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        f"print('imported:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"


def test_version_of_the_distribution() -> None:
    """`--version` prints the version of the distribution."""
    code = "from taskscaler.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith(taskscaler.__version__)
