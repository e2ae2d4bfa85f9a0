"""A plugin for tests: instances are files in a folder, so that all processes see the same.

It keeps its contract, except for the fault that the setting `mistake` selects. `install`
installs it into a folder for a Python that has this folder in `PYTHONPATH`.
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
    """The folder of the instances, and the fault."""

    folder: Path
    password: str = ""
    mistake: str = ""


class FolderGroup(InstanceGroup):
    """A group whose instances are the files of a folder."""

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
            raise ProviderError(f"{min(unknown)} does not exist")
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
        if self._config.mistake == "leaks":
            self._leak(self._config, self._config.password)
        if self._config.mistake == "hangs" and (self._config.folder / id).exists():
            self._config.folder.with_suffix(".reached").touch()
            await anyio.sleep_forever()
        if not (self._config.folder / id).exists():
            raise InstanceGone(id, f"{id} does not exist")

    def _leak(self, config: FolderConfig, password: str) -> None:
        """Leak the password in all the ways that a program may do by mistake."""
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
            raise PermissionDenied(f"the password {config.password} is wrong; use another one")
        if not config.folder.is_dir():
            raise ConfigError(f"plugin_config.folder: {config.folder} does not exist; create it")
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
    """Install this plugin into a folder."""
    (site / "folder_plugin.py").write_text(inspect.getsource(sys.modules[__name__]))
    metadata = site / "fleeting_plugin_folder-1.0.0.dist-info"
    metadata.mkdir()
    header = "Metadata-Version: 2.1\nName: fleeting-plugin-folder\nVersion: 1.0.0\n"
    (metadata / "METADATA").write_text(header)
    (metadata / "entry_points.txt").write_text("[fleeting]\nfolder = folder_plugin\n")
