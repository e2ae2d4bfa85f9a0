"""A real environment with fleeting in it, and the tools that make one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("ROOT", "TOOLS", "World", "uv")

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent  # uv and pipx are next to the Python of these tests
# Variables that change what an installer does.
PREFERENCES = re.compile(r"(PIP|PIPX|UV|PYTHON|NETRC|VIRTUAL_ENV|XDG)(_|$)|PYTHON")
TIMEOUT_SECONDS = 120


def uv(*arguments: str | Path) -> None:
    """Run uv as the machine has it configured, which is how the real dependencies come."""
    subprocess.run(
        [TOOLS / "uv", "--quiet", *arguments], check=True, cwd=ROOT, timeout=TIMEOUT_SECONDS
    )


@dataclass
class World:
    """An environment with fleeting in it, and a home of its own.

    Attributes:
        kind: pip or uv, which installs there.
        prefix: the environment.
        home: where caches, credentials and configuration are.
        variables: of its commands, in addition to the usual ones.
    """

    kind: str
    prefix: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def site(self) -> Path:
        """Return the folder of its distributions."""
        return next(self.prefix.glob("lib/python*/site-packages"))

    @property
    def command(self) -> Path:
        """Return the installed command."""
        return self.prefix / "bin" / "fleeting"

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables of its commands."""
        usual = {name: text for name, text in os.environ.items() if not PREFERENCES.match(name)}
        return {
            **usual,
            "HOME": str(self.home),
            "PATH": f"{TOOLS}:/usr/bin:/bin",
            "PIP_RETRIES": "0",
            "UV_HTTP_RETRIES": "0",
            "UV_LINK_MODE": "copy",
            "UV_PYTHON_DOWNLOADS": "never",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            **self.variables,
        }

    def run(
        self, *arguments: str | Path, code: int = 0, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `fleeting` with these arguments, and check its exit code."""
        completed = subprocess.run(
            [self.command, *arguments],
            env=self.environ,
            cwd=self.home,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert completed.returncode == code, completed.stdout + completed.stderr
        return completed

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start `fleeting` with these arguments."""
        return subprocess.Popen(
            [self.command, *arguments],
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def plugins(self) -> dict[str, str]:
        """Return the names and versions that `fleeting list` shows, without built-in plugins."""
        entries = json.loads(self.run("list", "--json").stdout)
        return {
            entry["name"]: entry["version"]
            for entry in entries
            if entry["distribution"] != "fleeting"
        }

    def snapshot(self) -> dict[str, bytes]:
        """Return every file of the environment that was not made by importing one."""
        return {
            str(path.relative_to(self.prefix)): path.read_bytes()
            for path in sorted(self.prefix.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".lock"
        }
