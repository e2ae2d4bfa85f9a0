"""The built-in provider `local`: instances that are SSH servers on this computer.

For experiments, for tests, and for jobs that fit on one machine. It needs no cloud,
no root and no sshd. Each instance has a port on 127.0.0.1, keys and a home
directory of its own. Removing it ends everything that it started. It is not a
sandbox: commands run as the user who started the manager, with the same access.

Modules, from the manager down:

* `_config`, `_check`: the configuration, and what is wrong with it
* `_group`, `_start`: the manager's side; starts or finds the server, and asks it
* `_main`, `_server`, `_instance`, `_session`: the server process with all SSH servers
* `_reaper_client`, `_supervisor`: the processes below it, which start and end commands
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from fleeting.abc import InstanceGroup, Provider
from fleeting.errors import ConfigError
from fleeting.local._config import LocalConfig
from fleeting.plugin import hookimpl
from fleeting.types import Severity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("LocalConfig", "LocalProvider", "fleeting_provider")


class LocalProvider(Provider[LocalConfig]):
    """Opens groups of instances on this computer."""

    name: ClassVar[str] = "local"
    config_type: ClassVar[type[LocalConfig]] = LocalConfig

    @override
    @asynccontextmanager
    async def open(
        self, config: LocalConfig, settings: GroupSettings
    ) -> AsyncGenerator[InstanceGroup]:
        from fleeting.local._check import find_problems

        findings = find_problems(config)
        errors = [one for one in findings if one.severity is Severity.ERROR]
        if errors:
            raise ConfigError(*(f"{one.reason}; {one.fix}" for one in errors))
        # Imported here, because it cannot be imported on Windows; the check above reports that.
        from fleeting.local._group import open_group

        async with open_group(config) as group:
            yield group

    @override
    async def check(self, config: LocalConfig, settings: GroupSettings) -> Sequence[Finding]:
        from fleeting.local._check import find_problems

        return find_problems(config)


@hookimpl
def fleeting_provider() -> Provider:
    """Return the provider `local`."""
    return LocalProvider()
