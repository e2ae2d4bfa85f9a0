"""Opens groups of the fake cloud through the plugin, as a manager would."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fleeting.errors import ProviderError
from fleeting.types import Duration, GroupSettings
from fleeting_plugin_aws import AwsConfig, AwsProvider

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup
    from fleeting.types import ConnectorSettings, Listing, State

__all__ = ("ENVIRONMENT", "configure", "drive", "open_group", "running_group", "settle", "states")

# Credentials for clients; nothing of this machine is read.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "not-looked-at",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
NAME = "builders"
# Shared by most tests, because loading the SDK's models takes a while.
PROVIDER = AwsProvider()


def configure(cloud: AwsCloud, **changes: Any) -> AwsConfig:
    """Return a configuration for the group `builders` without waiting times."""
    defaults: dict[str, Any] = {
        "name": NAME,
        "region": cloud.region,
        "endpoint_url": cloud.url,
        "launch_patience": Duration(0),
        "max_attempts": 2,
        "read_timeout": Duration(seconds=6),
        "requests_per_second": 1000.0,
    }
    return AwsConfig(**defaults | changes)


def open_group(
    cloud: AwsCloud,
    connector: ConnectorSettings | None = None,
    *,
    provider: AwsProvider | None = None,
    **changes: Any,
) -> AbstractAsyncContextManager[InstanceGroup]:
    """Open the group."""
    settings = GroupSettings(connector=connector) if connector else GroupSettings()
    return (provider or PROVIDER).open(configure(cloud, **changes), settings)


@asynccontextmanager
async def running_group(
    cloud: AwsCloud, count: int, **options: Any
) -> AsyncGenerator[tuple[InstanceGroup, list[str]]]:
    """Create and open a group with running instances; yield it and their ids, sorted.

    Args:
        cloud: the fake cloud.
        count: the number of instances.
        **options: of `AwsCloud.group`.
    """
    cloud.group(NAME, desired=count, **options)
    async with open_group(cloud) as group:
        yield group, sorted(states(await group.update()))


def states(listing: Listing) -> dict[str, State]:
    """Return the states of a listing's instances, by id."""
    return {one.id: one.state for one in listing.instances}


async def drive(group: InstanceGroup) -> Listing:
    """List the group and take the steps that follow, as its manager does; return the listing."""
    listing = await group.update()
    with suppress(ProviderError):
        await group.reconcile(listing)
    return listing


async def settle(cloud: AwsCloud, group: InstanceGroup) -> Listing:
    """Complete everything under way in the cloud, and return the listing after that."""
    cloud.settle()
    await drive(group)
    return await drive(group)
