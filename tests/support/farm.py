"""The real `fleeting` command, and a real group of instances that outlive it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleeting_command import run_in_process
from left_servers import watch_root
from own_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting_command import CompletedProcess

# Long enough for a slow machine; nothing that goes well waits for it.
DEADLINE_SECONDS = 60


class Farm:
    """A persistent group of the provider `local`, driven by `fleeting` commands.

    Attributes:
        folder: where the commands run.
        id: of the group.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locks = folder / "locks"
        watch_root(folder / "farm")
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

    def run(self, *words: str | Path) -> CompletedProcess:
        """Run the command to its end, inside this process."""
        return run_in_process(*words, folder=self.folder)

    def spawn(self, *words: str | Path, stdin: str = "") -> CompletedProcess:
        """Run the command to its end, as a process with streams of its own."""
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
        self, subcommand: str, *words: str, options: tuple[str, ...] = ()
    ) -> CompletedProcess:
        """Run a command on the group; `options` come after those that select it."""
        return self.run("group", subcommand, *words, *self.named, *options)

    def remote(self, id: str, *command: str, stdin: str = "") -> CompletedProcess:
        """Run a command on an instance, with `fleeting group run` as a process."""
        return self.spawn("group", "run", id, *self.named, "--", *command, stdin=stdin)

    def start(self, subcommand: str, *words: str) -> subprocess.Popen[str]:
        """Start a command on the group, whose output comes through pipes."""
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

    def start_remote(self, id: str, *command: str) -> subprocess.Popen[str]:
        """Start a command on an instance, with `fleeting group run` as a process."""
        return self.start("run", id, *self.named, "--", *command)

    def terminal(
        self, subcommand: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> Terminal:
        """Start a command on the group on a terminal of its own, with more variables."""
        arguments = ("group", subcommand, *words, *self.named)
        variables = {**self.environment, "TERM": "xterm", **(environment or {})}
        terminal = Terminal(self.program, arguments, self.folder, environment=variables)
        self._terminals.append(terminal)
        return terminal

    def grow(self, count: int) -> list[str]:
        """Add instances that run, and return the ids of all."""
        completed = self.group("increase", str(count), "--wait")
        assert completed.returncode == 0, completed.stderr
        return self.ids()

    def status(self) -> dict[str, Any]:
        """Return what the group says."""
        found: dict[str, Any] = json.loads(self.group("status", "--json").stdout)
        return found

    def ids(self) -> list[str]:
        """Return the ids of the instances that are not being removed."""
        instances = self.status()["instances"]
        return [one["id"] for one in instances if one["state"] != "deleting"]

    def close(self) -> None:
        """Remove every instance, with which the server ends, and what a test has left running."""
        for terminal in self._terminals:
            terminal.close()
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None and not stream.closed:
                    stream.close()
        if (self.folder / "farm").exists() and (ids := self.ids()):
            self.group("decrease", *ids, "--yes", "--force")
