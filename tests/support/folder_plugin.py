"""A plugin for tests: instances are files in a folder, so that every process sees the same.

What it gets wrong is a setting, `mistake`; without one it keeps its contract. `install`
puts it where a Python that is started with this `PYTHONPATH` finds it installed.
"""

from __future__ import annotations

import inspect
import logging
import sys
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import msgspec
from typing_extensions import override

from fleeting.abc import InstanceGroup, Provider
from fleeting.errors import ConfigError, InstanceGone, PermissionDenied, ProviderError
from fleeting.plugin import hookimpl
from fleeting.types import Accepted, ConnectInfo, GroupInfo, Instance, Listing, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("FolderConfig", "FolderGroup", "FolderProvider", "fleeting_provider", "install")

logger = logging.getLogger(__name__)


class FolderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the instances are, and what goes wrong."""

    folder: Path
    password: str = ""
    mistake: str = ""


class FolderGroup(InstanceGroup):
    """The files of a folder."""

    def __init__(self, config: FolderConfig) -> None:
        self.info = GroupInfo(f"folder{config.folder}")
        self._config = config

    def _paths(self) -> list[Path]:
        return sorted(self._config.folder.iterdir())

    @override
    async def update(self) -> Listing:
        await anyio.lowlevel.checkpoint()
        return Listing(tuple(Instance(path.name, State.RUNNING) for path in self._paths()))

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        await anyio.lowlevel.checkpoint()
        ids = tuple(uuid.uuid4().hex for _ in range(count))
        for id in ids:
            (self._config.folder / id).touch()
        return Accepted(count, ids)

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        await anyio.lowlevel.checkpoint()
        unknown = set(ids) - {path.name for path in self._paths()}
        if unknown and self._config.mistake == "refuses":
            raise ProviderError(f"there is no {min(unknown)}")
        for id in set(ids) - unknown:
            (self._config.folder / id).unlink()
        once = tuple(dict.fromkeys(ids))
        return Accepted(len(once), once)

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        await self.heartbeat(id)
        return ConnectInfo(id, "folder", password=self._config.password or None)

    @override
    async def heartbeat(self, id: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self._config.mistake == "tells":
            self._tell(self._config, self._config.password)
        if self._config.mistake == "hangs" and (self._config.folder / id).exists():
            self._config.folder.with_suffix(".reached").touch()
            await anyio.sleep_forever()
        if not (self._config.folder / id).exists():
            raise InstanceGone(id, f"there is no {id}")

    def _tell(self, config: FolderConfig, password: str) -> None:
        """Tell the password in all the ways in which a program can by mistake."""
        print("print:", password)  # noqa: T201
        logger.warning("log: %s", password)
        raise RuntimeError(f"raise: {config} {password}")


class FolderProvider(Provider):
    """Opens folders."""

    name = "folder"
    config_type = FolderConfig

    @override
    @asynccontextmanager
    async def open(
        self, config: FolderConfig, settings: GroupSettings
    ) -> AsyncGenerator[FolderGroup]:
        await anyio.lowlevel.checkpoint()
        if config.mistake == "denies":
            raise PermissionDenied(
                f"the password {config.password} is wrong; look for a better one"
            )
        if not config.folder.is_dir():
            raise ConfigError(f"plugin_config.folder: there is no folder {config.folder}; make it")
        yield FolderGroup(config)

    @override
    async def check(self, config: FolderConfig, settings: GroupSettings) -> Sequence[Finding]:
        await anyio.lowlevel.checkpoint()
        return ()


@hookimpl
def fleeting_provider() -> Provider:
    """Return the provider `folder`."""
    return FolderProvider()


def install(site: Path) -> None:
    """Install this plugin into a folder that stands on the path of a Python."""
    (site / "folder_plugin.py").write_text(inspect.getsource(sys.modules[__name__]))
    metadata = site / "fleeting_plugin_folder-1.0.0.dist-info"
    metadata.mkdir()
    header = "Metadata-Version: 2.1\nName: fleeting-plugin-folder\nVersion: 1.0.0\n"
    (metadata / "METADATA").write_text(header)
    (metadata / "entry_points.txt").write_text("[fleeting]\nfolder = folder_plugin\n")
