"""Runs the `fleeting` command inside this process, where the process itself is not the subject.

That saves the start of an interpreter. What the command writes to `sys.stdout` and `sys.stderr`
is captured; what it writes to file descriptors is not.
"""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import pytest

from fleeting import run_program
from fleeting.cli._commands import command_group

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("CompletedProcess", "run_in_process")

CompletedProcess = subprocess.CompletedProcess[str]


def run_in_process(*words: str | Path, folder: Path) -> CompletedProcess:
    """Run `fleeting` in a folder, without a terminal, and return its output and exit code."""
    importlib.invalidate_caches()
    arguments = [str(word) for word in words]
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["fleeting", *arguments], io.StringIO()
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            chdir(folder),
            redirect_stdout(io.StringIO()) as stdout,
            redirect_stderr(io.StringIO()) as stderr,
        ):
            # A process of its own knows no secret of an earlier one.
            patch.setattr("fleeting._secrets._lasting", set[str]())
            patch.setattr("fleeting._secrets._settings", set[str]())
            code = run_program(command_group, "fleeting")
    finally:
        sys.argv, sys.stdin = before
    return CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())
