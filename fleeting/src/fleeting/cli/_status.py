"""`fleeting group status`: what a group is, and how its instances are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from fleeting._lock import lock_path, read_holder
from fleeting._text import plain
from fleeting.cli._open_group import opened
from fleeting.cli._table import table
from fleeting.errors import ConfigError
from fleeting.types import Listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fleeting.cli._open_group import Hand
    from fleeting.cli._target import Target
    from fleeting.types import GroupInfo, Instance

__all__ = ("instance_table", "list_instances", "show_status", "summary")

HEADING = ("ID", "STATE", "INCARNATION", "REASON")


async def show_status(target: Target, *, as_json: bool) -> int:
    """Print how a group is, and return the exit code.

    Args:
        target: the group.
        as_json: whether a program reads it.
    """
    async with opened(target) as hand:
        listing = await list_instances(hand)
        info = hand.group.info
    driver = _driver(info.id)
    if as_json:
        click.echo(json.dumps(_document(target, info, listing, driver), indent=2))
        return 0
    for line in _told(target, info, listing, driver):
        click.echo(line)
    return 0


async def list_instances(hand: Hand) -> Listing:
    """Return the listing of a group."""
    return await hand.ask("list its instances", Listing, hand.group.update)


def instance_table(instances: Iterable[Instance]) -> list[str]:
    """Return the lines of a table of instances, sorted by their ids."""
    rows = [
        (one.id, one.state.value, one.incarnation or "-", one.reason or "")
        for one in sorted(instances, key=lambda one: one.id)
    ]
    return table(HEADING, [[plain(cell) for cell in row] for row in rows]).splitlines()


def summary(listing: Listing) -> str:
    """Say in a line how many instances there are, in which states."""
    counts: dict[str, int] = {}
    for one in listing.instances:
        counts[one.state.value] = counts.get(one.state.value, 0) + 1
    total = len(listing.instances)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    text = f"{total} instance{'' if total == 1 else 's'}{f' ({states})' if states else ''}"
    return f"{text}, {listing.pending} pending" if listing.pending else text


def _driver(id: str) -> str | None:
    """Say who drives a group, as far as that is known."""
    try:
        holder = read_holder(lock_path(id))
    except ConfigError:
        return None  # Without a place for locks there are none.
    # Whoever was killed could not take his name away.
    return None if holder is None or holder.is_alive is False else str(holder)


def _told(target: Target, info: GroupInfo, listing: Listing, driver: str | None) -> Iterator[str]:
    version = f" {info.version}" if info.version else ""
    capabilities = ", ".join(sorted(one.value for one in info.capabilities)) or "none"
    limit = info.max_size if info.max_size is not None else "unlimited"
    yield f"group:         {plain(info.id)}"
    yield f"plugin:        {target.provider.name}{plain(version)}"
    yield f"capabilities:  {capabilities}"
    yield f"maximum size:  {limit}"
    yield f"driven by:     {plain(driver) if driver else 'nobody'}"
    yield f"size:          {summary(listing)}"
    for failure in listing.failures:
        yield f"failure:       {plain(str(failure))}"
    if listing.instances:
        yield ""
        yield from instance_table(listing.instances)


def _document(
    target: Target, info: GroupInfo, listing: Listing, driver: str | None
) -> dict[str, Any]:
    return {
        "id": info.id,
        "plugin": target.provider.name,
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
            {"error": type(one).__name__, "message": str(one)} for one in listing.failures
        ],
    }
