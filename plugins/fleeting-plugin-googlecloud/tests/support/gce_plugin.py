"""Opens groups of the fake cloud through the plugin, as a manager would."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fleeting.errors import ProviderError
from fleeting.types import Duration, GroupSettings
from fleeting_plugin_googlecloud import GoogleConfig, GoogleProvider
from gce_cloud import PROJECT, REGION, ZONE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import InstanceGroup
    from fleeting.types import ConnectorSettings, Listing, State
    from gce_cloud import GoogleCloud

__all__ = ("configure", "drive", "open_group", "running_group", "settle", "states")

NAME = "builders"


def configure(cloud: GoogleCloud, *, regional: bool = False, **changes: Any) -> GoogleConfig:
    """Return a configuration for the group `builders`."""
    place = {"region": REGION} if regional else {"zone": ZONE}
    defaults: dict[str, Any] = {
        "name": NAME,
        "project": PROJECT,
        "endpoint": cloud.url,
        "credentials_file": cloud.credentials,
        "request_timeout": Duration(seconds=10),
        **place,
    }
    return GoogleConfig(**defaults | changes)


def open_group(
    cloud: GoogleCloud, connector: ConnectorSettings | None = None, **changes: Any
) -> AbstractAsyncContextManager[InstanceGroup]:
    """Open the group."""
    settings = GroupSettings(connector=connector) if connector else GroupSettings()
    return GoogleProvider().open(configure(cloud, **changes), settings)


@asynccontextmanager
async def running_group(
    cloud: GoogleCloud, count: int, connector: ConnectorSettings | None = None, **options: Any
) -> AsyncGenerator[tuple[InstanceGroup, list[str]]]:
    """Create and open a group with running instances; yield it and their ids, sorted.

    Args:
        cloud: the fake cloud.
        count: the number of instances.
        connector: the operator's settings for connecting.
        **options: of `GoogleCloud.group`.
    """
    cloud.group(NAME, running=count, **options)
    regional = bool(options.get("regional"))
    async with open_group(cloud, connector, regional=regional) as group:
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


async def settle(cloud: GoogleCloud, group: InstanceGroup) -> Listing:
    """Complete everything under way in the cloud, and return the listing after that."""
    cloud.settle()
    await drive(group)
    return await drive(group)
