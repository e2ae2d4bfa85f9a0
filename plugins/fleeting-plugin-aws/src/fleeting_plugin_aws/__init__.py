"""The plugin `aws`: EC2 Auto Scaling groups as groups of instances.

Nothing here imports the SDK: that takes most of a second, and happens in a
thread when a group is opened or checked. What the cloud's words mean is in
small modules of pure functions (`_states`, `_capacity`, `_activities`,
`_findings`, `_policy`, `_standby`); what talks to it is a thin layer around them.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from typing_extensions import override

from fleeting.abc import InstanceGroup, Provider
from fleeting.plugin import hookimpl
from fleeting.types import Capability, Duration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("AwsConfig", "AwsProvider", "__version__", "fleeting_provider")

__version__ = "1.0.0"


class AwsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin_config]` of the provider `aws`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    """The name of the Auto Scaling group."""

    region: str | None = None
    """Where it is; by default what the SDK's configuration says."""

    profile: str | None = None
    """The profile of the SDK's configuration files to use."""

    config_file: Path | None = None
    """The SDK's configuration file; `~/.aws/config` by default."""

    credentials_file: Path | None = None
    """The SDK's file of credentials; `~/.aws/credentials` by default."""

    assume_role_arn: str | None = None
    """A role to act as, assumed with the credentials that were found."""

    endpoint_url: str | None = None
    """Where to send all requests instead of to AWS: an emulator, or a proxy."""

    host_keys: Literal["first-use", "console"] = "first-use"
    """How to know the instances' SSH host keys: `"first-use"` trusts the key that is shown
    first, `"console"` reads the keys that cloud-init prints on the console."""

    interruption_queue_url: str | None = None
    """An SQS queue in which EventBridge puts interruption notices of this group's instances."""

    launch_patience: Duration = Duration(seconds=20)
    """How long a failed launch may be made good, in another zone for instance, before what
    is missing is given up."""

    connect_timeout: Duration = Duration(seconds=5)
    """How long connecting to an endpoint of AWS may take."""

    read_timeout: Duration = Duration(seconds=30)
    """How long an endpoint of AWS may stay silent."""

    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    """How often a request is sent at most; one that changes something is only sent again if
    it is certain that nothing was done."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """How many requests per second the groups of one account and region send together."""


class AwsProvider(Provider):
    """Opens EC2 Auto Scaling groups.

    The groups that one provider has open share what is limited for an account and a region.
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

        async with open_group(config, settings, self._shared) as group:
            yield group

    @override
    async def check(self, config: AwsConfig, settings: GroupSettings) -> Sequence[Finding]:
        from fleeting_plugin_aws._check import check

        return await check(config, settings, self._shared)


@hookimpl
def fleeting_provider() -> Provider:
    """Return the provider `aws`."""
    return AwsProvider()
