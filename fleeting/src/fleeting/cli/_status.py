"""`fleeting group status`: a group and the states of its instances."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fleeting._lock import lock_path, read_holder
from fleeting._text import foreign, say, say_json
from fleeting.cli._open_group import open_group
from fleeting.cli._table import table
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fleeting.cli._selection import GroupSelection
    from fleeting.types import GroupInfo, Instance, Listing

__all__ = ("instance_table", "show_status", "summary")

HEADING = ("ID", "STATE", "INCARNATION", "REASON")


async def show_status(selection: GroupSelection, *, as_json: bool) -> int:
    """Print the status of a group, and return the exit code.

    Args:
        selection: the group.
        as_json: whether to print JSON instead of a table.
    """
    async with open_group(selection) as group:
        listing = await group.list_instances()
        info = group.instances.info
    plugin, driver = selection.provider.name, _driver(info.id)
    if as_json:
        say_json(json.dumps(_document(plugin, info, listing, driver), default=str))
        return 0
    for line in _lines(plugin, info, listing, driver):
        say(line)
    return 0


def instance_table(instances: Iterable[Instance]) -> list[str]:
    """Return the lines of a table of instances, sorted by their ids."""
    rows = [
        (one.id, one.state.value, one.incarnation or "-", foreign(one.reason or ""))
        for one in sorted(instances, key=lambda one: one.id)
    ]
    return table(HEADING, rows).splitlines()


def summary(listing: Listing) -> str:
    """Return a line with the number of instances in each state."""
    counts: dict[str, int] = {}
    for one in listing.instances:
        counts[one.state.value] = counts.get(one.state.value, 0) + 1
    total = len(listing.instances)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    text = f"{total} instance{'' if total == 1 else 's'}{f' ({states})' if states else ''}"
    return f"{text}, {listing.pending} pending" if listing.pending else text


def _driver(id: str) -> str | None:
    """Return the process that drives a group; None if none is known."""
    try:
        holder = read_holder(lock_path(id))
    except ConfigError:
        return None  # Without a directory for locks there are none.
    # A killed process leaves its name in the file.
    return None if holder is None or holder.is_alive is False else str(holder)


def _lines(plugin: str, info: GroupInfo, listing: Listing, driver: str | None) -> Iterator[str]:
    version = f" {info.version}" if info.version else ""
    capabilities = ", ".join(sorted(one.value for one in info.capabilities)) or "none"
    limit = info.max_size if info.max_size is not None else "unlimited"
    yield f"group:         {info.id}"
    yield f"plugin:        {plugin}{version}"
    yield f"capabilities:  {capabilities}"
    yield f"maximum size:  {limit}"
    yield f"driven by:     {driver or 'no process'}"
    yield f"size:          {summary(listing)}"
    for failure in listing.failures:
        yield f"failure:       {failure.error}"
    if listing.instances:
        yield ""
        yield from instance_table(listing.instances)


def _document(plugin: str, info: GroupInfo, listing: Listing, driver: str | None) -> dict[str, Any]:
    return {
        "id": info.id,
        "plugin": plugin,
        "version": info.version,
        "capabilities": sorted(one.value for one in info.capabilities),
        "max_size": info.max_size,
        "driven_by": driver,
        "instances": [
            {
                "id": one.id,
                "state": one.state.value,
                "incarnation": one.incarnation,
                "reason": one.reason,
            }
            for one in sorted(listing.instances, key=lambda one: one.id)
        ],
        "pending": listing.pending,
        "failures": [
            {"id": one.id, "error": type(one.error).__name__, "message": str(one.error)}
            for one in listing.failures
        ],
    }
