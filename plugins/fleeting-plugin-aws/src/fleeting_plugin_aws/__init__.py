"""The `aws` plugin: EC2 Auto Scaling groups as instance groups.

Importing this module does not import the AWS SDK. Loading the SDK takes most of
a second, so it happens in a thread when a group is opened or checked.

The modules form layers; each imports only from lines above it:

    _config, _commands, _policy, _keys, _states     values and texts
    _activities, _capacity, _standby, _successors   decisions: pure functions of those values
    _errors, _limiter, _session, _clients           how a request reaches AWS
    _hooks, _findings                               what works on the group from outside
    _requests, _instances                           the requests that several modules need
    _launch_failures, _suspension, _access, _notices, _preflight
    _group, _open, _check                           what the provider offers
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from fleeting.abc import InstanceGroup, Provider
from fleeting.plugin import hookimpl
from fleeting.types import Capability
from fleeting_plugin_aws._config import AwsConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("AwsConfig", "AwsProvider", "__version__", "fleeting_provider")

__version__ = "1.0.0"


class AwsProvider(Provider[AwsConfig]):
    """Opens EC2 Auto Scaling groups.

    Groups opened by one provider share a request limit for each account and region.
    """

    name: ClassVar[str] = "aws"
    config_type: ClassVar[type[AwsConfig]] = AwsConfig
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.SUSPEND, Capability.WATCH}
    )

    def __init__(self) -> None:
        from fleeting_plugin_aws._limiter import Shared

        self._shared = Shared()

    @override
    @asynccontextmanager
    async def open(
        self, config: AwsConfig, settings: GroupSettings
    ) -> AsyncGenerator[InstanceGroup]:
        from fleeting_plugin_aws._open import open_group

        async with open_group(config, settings, self._shared, version=__version__) as group:
            yield group

    @override
    async def check(self, config: AwsConfig, settings: GroupSettings) -> Sequence[Finding]:
        from fleeting_plugin_aws._check import check

        return await check(config, settings, self._shared)


@hookimpl
def fleeting_provider() -> Provider:
    """Return the `aws` provider."""
    return AwsProvider()
