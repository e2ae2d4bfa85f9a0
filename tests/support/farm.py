"""The real `fleeting` command, and a persistent group of real instances."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from typing_extensions import override

from fleeting.cli._target import Target
from fleeting.testing import FakeInstanceGroup, FakeProvider
from fleeting.types import GroupSettings
from own_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

# Long enough for a slow machine; a passing test does not wait for it.
DEADLINE_SECONDS = 60


class Farm:
    """A persistent group of the provider `local`, driven by commands, each a process of its own.

    Attributes:
        folder: where the commands run.
        id: of the group.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks = folder / "locks"
        self.id = f"local{(folder / 'farm').resolve()}"
        self.named = (
            *("--plugin", "local", "--plugin-config", f"root={folder / 'farm'}"),
            *("--plugin-config", "persistent=true"),
        )
        self._terminals: list[Terminal] = []
        self._started: list[subprocess.Popen[str]] = []

    @property
    def program(self) -> str:
        """Return the path of the command."""
        return str(Path(sys.executable).with_name("fleeting"))

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of a command."""
        return {**os.environ, "FLEETING_LOCK_DIR": str(self.locks)}

    def run(self, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command with these arguments to its end."""
        return subprocess.run(
            [self.program, *words],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def group(
        self, subcommand: str, *words: str, options: tuple[str, ...] = (), stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the group; `options` come after those that name it."""
        return self.run("group", subcommand, *words, *self.named, *options, stdin=stdin)

    def start(self, subcommand: str, *words: str) -> subprocess.Popen[str]:
        """Start a command on the group, with pipes as its streams."""
        process = subprocess.Popen(
            [self.program, "group", subcommand, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def terminal(
        self, subcommand: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> Terminal:
        """Start a command on the group on a terminal of its own, with additional variables."""
        arguments = ("group", subcommand, *words, *self.named)
        variables = {**self.environment, "TERM": "xterm", **(environment or {})}
        terminal = Terminal(self.program, arguments, self.folder, environment=variables)
        self._terminals.append(terminal)
        return terminal

    def grow(self, count: int) -> list[str]:
        """Add instances, wait until they run, and return the ids of all."""
        completed = self.group("increase", str(count), "--wait")
        assert completed.returncode == 0, completed.stderr
        return self.ids()

    def status(self) -> dict[str, Any]:
        """Return the status of the group."""
        found: dict[str, Any] = json.loads(self.group("status", "--json").stdout)
        return found

    def ids(self) -> list[str]:
        """Return the ids of the instances that are not being removed."""
        instances = self.status()["instances"]
        return [one["id"] for one in instances if one["state"] != "deleting"]

    def close(self) -> None:
        """End the processes that a test left, and remove every instance, which ends the server."""
        for terminal in self._terminals:
            terminal.close()
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    stream.close()
        if ids := self.ids():
            self.group("decrease", *ids, "--yes", "--force")


class Prepared(FakeProvider):
    """Opens a group that a test has prepared."""

    def __init__(self, group: FakeInstanceGroup) -> None:
        super().__init__()
        self.group = group

    @override
    @asynccontextmanager
    async def open(self, config: object, settings: object) -> AsyncGenerator[FakeInstanceGroup]:
        # A real group can have tasks of its own while it is open.
        async with anyio.create_task_group():
            yield self.group


def target(group: FakeInstanceGroup) -> Target:
    """Return a target that is the given group."""
    return Target("plugin fake", Prepared(group), None, GroupSettings(), "--plugin fake")
