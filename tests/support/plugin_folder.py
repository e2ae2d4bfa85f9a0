"""A folder of plugins that one test installs, and the `fleeting` command that sees them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleeting_command import run_in_process

if TYPE_CHECKING:
    from fleeting_command import CompletedProcess

PROVIDER = """
from fleeting.plugin import hookimpl
from fleeting.testing import FakeProvider
from fleeting.types import Capability

class Provider(FakeProvider):
    name = {name!r}
    capabilities = frozenset({{Capability.WATCH, Capability.SUSPEND}})

@hookimpl
def fleeting_provider():
    return Provider()
"""


class PluginFolder:
    """Distributions in a folder on the path of the command, in addition to the installed ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)

    def add(
        self,
        name: str,
        source: str = "",
        *,
        version: str = "1.2.3",
        distribution: str = "",
        group: str = "fleeting",
        header: str = "",
    ) -> None:
        """Install a distribution with one plugin; without a source, a plugin that works."""
        distribution = distribution or f"fleeting-plugin-{name}"
        module = distribution.replace("-", "_")
        (self.path / f"{module}.py").write_text(source or PROVIDER.format(name=name))
        metadata = self.path / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{header}"
        )
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")

    @property
    def program(self) -> Path:
        """Return the path of the command."""
        return Path(sys.executable).with_name("fleeting")

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of a command that sees the plugins."""
        return {**os.environ, "PYTHONPATH": str(self.path), "TERM": "xterm"}

    def run(self, *words: str | Path, folder: Path | None = None) -> CompletedProcess:
        """Run `fleeting` to its end, inside this process; what verifies plugins is a child."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(self.path))
            patch.setattr(sys, "path", [str(self.path), *sys.path])
            return run_in_process(*words, folder=folder or self.path.parent)

    def rows(self, *words: str | Path) -> dict[str, dict[str, Any]]:
        """Return the rows of `fleeting list` by name; no name may occur twice."""
        listed: list[dict[str, Any]] = json.loads(self.run("list", "--json", *words).stdout)
        rows = {row["name"]: row for row in listed}
        assert len(rows) == len(listed)
        return rows
