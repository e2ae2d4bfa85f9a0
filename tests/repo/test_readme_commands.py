"""The commands of the README are the ones that continuous integration runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = re.compile(r"^(?: {4})?(pip install uv && uv run .*)$", re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return the lines that take a fresh machine to a result, as they are written."""
    return COMMAND.findall(text)


def test_ci_runs_what_the_readme_says(root: Path) -> None:
    """The script runs exactly the README's two commands, in its order and nothing else."""
    written = commands((root / "README.md").read_text())
    assert len(written) == 2
    assert commands((root / ".ci" / "run").read_text()) == written


def test_other_commands_are_noticed() -> None:
    """A line that differs in an option or is commented out is another line."""
    assert commands("pip install uv && uv run pytest -x\n") != ["pip install uv && uv run pytest"]
    assert commands("# pip install uv && uv run pytest\n") == []
