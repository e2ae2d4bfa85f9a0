"""Fixtures of the command-line tests, which use the real local provider."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cli_command import Command
from farm import Farm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def taskscaler(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Yield the command."""
    command = Command(tmp_path, capfd)
    yield command
    command.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Return a named pipe: a job that reads it runs until the test writes to it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Farm]:
    """Yield a group of local instances that outlive the commands."""
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path / "locks"))
    farm = Farm(tmp_path)
    yield farm
    farm.close()
