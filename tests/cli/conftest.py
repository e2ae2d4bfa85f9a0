"""The real command, as a process of its own, on the real local provider."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cli_command import Command
from farm import Farm

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


@pytest.fixture
def taskscaler(tmp_path: Path) -> Iterator[Command]:
    """Yield the command."""
    command = Command(tmp_path)
    yield command
    command.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Return a pipe with a name: a job that reads it runs until the test writes to it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    """Yield a persistent group of instances on this computer, empty at first."""
    with opened_farm(tmp_path) as farm:
        yield farm


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Yield a group that the tests of a module share, to start its server once."""
    with opened_farm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def instance_id(shared_farm: Farm) -> str:
    """Return the id of a running instance of the shared group."""
    return (shared_farm.ids() or shared_farm.grow(1))[0]


@contextmanager
def opened_farm(folder: Path) -> Generator[Farm]:
    """Yield a group whose locks are in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETING_LOCK_DIR", str(folder / "locks"))
        patch.setattr("fleeting.cli._changes.WAIT_INTERVAL_SECONDS", 0.05)
        farm = Farm(folder)
        try:
            yield farm
        finally:
            farm.close()
