"""Continuous integration runs the commands of the README."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = re.compile(r"^(?: {4})?(pip install uv && uv run .*)$", re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return the lines that take a new machine to a result, as they are written."""
    return COMMAND.findall(text)


def test_ci_runs_the_commands_of_the_readme(root: Path) -> None:
    """The script runs exactly the README's two commands, in the same order."""
    written = commands((root / "README.md").read_text())
    assert len(written) == 2
    assert commands((root / ".ci" / "run").read_text()) == written


def test_ci_runs_the_long_proofs(root: Path) -> None:
    """The script selects the tests that are deselected by default."""
    assert "-m not long" in (root / "pyproject.toml").read_text()
    assert "PYTEST_ADDOPTS=\"-m '' " in (root / ".ci" / "run").read_text()


def test_ci_runs_every_promised_python(root: Path) -> None:
    """The script takes its Pythons from the classifiers, which all distributions have in common."""
    pattern = re.compile(r'"Programming Language :: Python :: (3\.\d+)"')
    projects = [*root.glob("*/pyproject.toml"), *root.glob("plugins/*/pyproject.toml")]
    promised = {tuple(pattern.findall(project.read_text())) for project in projects}
    assert len(promised) == 1
    script = (root / ".ci" / "run").read_text()
    function = re.search(r"^promised_pythons\(\) \{\n.*?^\}\n", script, re.MULTILINE | re.DOTALL)
    assert function is not None
    command = ["bash", "-c", f"{function[0]}\npromised_pythons"]
    printed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert tuple(printed.stdout.split()) == promised.pop()


def test_the_forge_runs_the_script(root: Path) -> None:
    """The forge's file runs the same script as a contributor, and nothing else."""
    text = (root / ".gitlab-ci.yml").read_text()
    assert re.findall(r"^    - (.*)$", text, re.MULTILINE) == [".ci/run"]


def test_other_commands_are_noticed() -> None:
    """A line with another option, or one in a comment, is another line."""
    assert commands("pip install uv && uv run pytest -x\n") != ["pip install uv && uv run pytest"]
    assert commands("# pip install uv && uv run pytest\n") == []
