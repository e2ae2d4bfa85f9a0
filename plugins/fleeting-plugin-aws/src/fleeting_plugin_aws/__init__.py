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
from msgspec import Meta
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

    name: Annotated[
        str, Meta(min_length=1, max_length=255, description="The name of the Auto Scaling group.")
    ]
    region: Annotated[
        str | None, Meta(description="The region; by default that of the SDK's configuration.")
    ] = None
    profile: Annotated[
        str | None, Meta(description="The profile in the SDK's configuration files.")
    ] = None
    config_file: Annotated[
        Path | None, Meta(description="The SDK's configuration file; by default `~/.aws/config`.")
    ] = None
    credentials_file: Annotated[
        Path | None, Meta(description="The SDK's credentials; by default `~/.aws/credentials`.")
    ] = None
    assume_role_arn: Annotated[
        str | None, Meta(description="A role to assume with the credentials that were found.")
    ] = None
    endpoint_url: Annotated[
        str | None, Meta(description="Send all requests here instead: an emulator or a proxy.")
    ] = None
    host_keys: Annotated[
        Literal["first-use", "console"],
        Meta(
            description="How to verify SSH host keys: `first-use` trusts the first key that is "
            "seen, `console` reads the keys that cloud-init prints on the console."
        ),
    ] = "first-use"
    interruption_queue_url: Annotated[
        str | None,
        Meta(description="An SQS queue with EventBridge's interruption notices for the group."),
    ] = None
    launch_patience: Annotated[
        Duration,
        Meta(
            description="How long AWS may retry a failed launch, for example in another zone, "
            "before the missing instances are given up."
        ),
    ] = Duration(seconds=20)
    connect_timeout: Annotated[
        Duration, Meta(description="How long connecting to an endpoint may take.")
    ] = Duration(seconds=5)
    read_timeout: Annotated[Duration, Meta(description="How long an endpoint may stay silent.")] = (
        Duration(seconds=30)
    )
    max_attempts: Annotated[
        int,
        Meta(
            ge=1,
            le=20,
            description="The most attempts for a request. A request that changes something is "
            "repeated only if the first attempt certainly had no effect.",
        ),
    ] = 4
    requests_per_second: Annotated[
        float,
        Meta(gt=0, description="The most requests per second for one account and region."),
    ] = 10.0


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
