"""Opens groups of the fake cloud through the plugin, as a manager would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting.types import Duration, GroupSettings
from fleeting_plugin_aws import AwsConfig, AwsProvider

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup
    from fleeting.types import ConnectorSettings, Listing, State

__all__ = ("configure", "open_group", "settle", "states")

NAME = "builders"
# One for most tests: what it has loaded of the SDK takes a while.
PROVIDER = AwsProvider()


def configure(cloud: AwsCloud, **changes: Any) -> AwsConfig:
    """Return a configuration for the group `builders` that waits for nothing."""
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
    """Return what opens the group."""
    settings = GroupSettings(connector=connector) if connector else GroupSettings()
    return (provider or PROVIDER).open(configure(cloud, **changes), settings)


def states(listing: Listing) -> dict[str, State]:
    """Return the states of a listing's instances, by their ids."""
    return {one.id: one.state for one in listing.instances}


async def settle(cloud: AwsCloud, group: InstanceGroup) -> Listing:
    """Let everything in the cloud come to its end, and return the listing after that."""
    cloud.settle()
    await group.update()
    return await group.update()
