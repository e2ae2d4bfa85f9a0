"""The `googlecloud` plugin: managed instance groups of Compute Engine as instance groups.

Importing this module does not import Google's SDK. Loading the SDK takes seconds, so it
happens in a thread when a group is opened or checked.

The modules form layers; each imports only from lines above it:

    _config, _commands, _names               values and texts
    _errors                                  classes for Google's refusals
    _members, _keys, _notices, _instances, _findings, _role
                                             decisions: pure functions of Google's answers
    _threads, _sdk, _api                     how a request reaches Google
    _requests                                the requests that several modules need
    _creation, _passwords, _access, _examination
    _group, _open, _check                    what the provider offers
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from fleeting.abc import InstanceGroup, Provider
from fleeting.plugin import hookimpl
from fleeting.types import Capability
from fleeting_plugin_googlecloud._config import GoogleConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("GoogleConfig", "GoogleProvider", "__version__", "fleeting_provider")

__version__ = "1.0.0"


class GoogleProvider(Provider[GoogleConfig]):
    """Opens zonal and regional managed instance groups."""

    name: ClassVar[str] = "googlecloud"
    config_type: ClassVar[type[GoogleConfig]] = GoogleConfig
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.SUSPEND, Capability.WATCH}
    )

    @override
    @asynccontextmanager
    async def open(
        self, config: GoogleConfig, settings: GroupSettings
    ) -> AsyncGenerator[InstanceGroup]:
        from fleeting_plugin_googlecloud._open import open_group

        async with open_group(config, settings, version=__version__) as group:
            yield group

    @override
    async def check(self, config: GoogleConfig, settings: GroupSettings) -> Sequence[Finding]:
        from fleeting_plugin_googlecloud._check import check

        return await check(config, settings)


@hookimpl
def fleeting_provider() -> Provider:
    """Return the `googlecloud` provider."""
    return GoogleProvider()
