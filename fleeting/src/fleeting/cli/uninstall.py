"""`fleeting uninstall`: remove the distribution that carries a plugin."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from fleeting._references import canonical
from fleeting._text import plain, say
from fleeting.errors import ConfigError, PluginNotFound
from fleeting.install.changing import Change
from fleeting.install.checking import installed_plugins
from fleeting.install.requests import OURS

if TYPE_CHECKING:
    from fleeting._metadata import PluginEntry

__all__ = ("command",)


@click.command("uninstall")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def command(*, name: str, yes: bool) -> int:
    """Remove a plugin, with the installer of this Python environment.

    NAME is the name of the plugin or of its package. Packages that it required stay installed.
    """
    entry = _find(name)
    what = f"{entry.name} {entry.version} ({entry.distribution})"
    if not yes and not sys.stdin.isatty():
        raise ConfigError("standard input is not a terminal; pass --yes to remove the plugin")
    if not yes and not click.confirm(f"Remove {plain(what)}?", err=True):
        say("nothing was removed", err=True)
        return 1
    left = Change(partial(say, err=True)).remove(canonical(entry.distribution))
    say(f"removed {what}")
    if left:
        say(f"these packages, which it required, stay installed: {', '.join(left)}")
    return 0


def _find(name: str) -> PluginEntry:
    """Return the plugin of a name, or of the distribution of that name."""
    entries = [entry for _, entry in installed_plugins()]
    found = {one.distribution: one for one in entries if name in {one.name, one.distribution}}
    if not found:
        known = {one.name for one in entries}
        raise PluginNotFound("plugin", name, sorted(known), "nothing was removed")
    if len(found) > 1:
        raise ConfigError(
            f"{name} is carried by {' and by '.join(sorted(found))}; name the package to remove, "
            f"as in `fleeting uninstall {min(found)}`"
        )
    ((distribution, entry),) = found.items()
    if distribution == OURS:
        raise ConfigError(f"{name} is built into fleeting and cannot be removed")
    return entry
