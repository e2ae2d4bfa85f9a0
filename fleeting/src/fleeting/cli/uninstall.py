"""`fleeting uninstall`: remove the distribution that carries a plugin."""

from __future__ import annotations

import sys

import click

from fleeting.errors import ConfigError
from fleeting.install.installing import Manner, Removal

__all__ = ("command",)


@click.command("uninstall")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("-v", "--verbose", is_flag=True, help="Show all that the package installer prints.")
def command(*, name: str, yes: bool, verbose: bool) -> int:
    """Remove a plugin, by removing the distribution that carries it.

    NAME is the plugin's, or that of its package, if two packages have a plugin of one name.
    What it needed stays installed, as others may need it; it is named.

    \b
    Example:
      fleeting uninstall aws
    """  # noqa: D301 - click's mark of lines that stay as they are
    manner = Manner(tell=lambda sentence: click.echo(sentence, err=True), verbose=verbose)
    removal = Removal(name, manner)
    what = f"{removal.distribution} {removal.entry.version}"
    also = f", and with it {', '.join(removal.also)}" if removal.also else ""
    if not yes and not _agreed(f"Remove {removal.entry.name} ({what}){also}?"):
        click.echo("nothing was removed", err=True)
        return 1
    left = removal.run()
    click.echo(f"removed {removal.entry.name} ({what}){also}")
    if left:
        click.echo(f"still installed, though no other package needs it: {', '.join(left)}")
    return 0


def _agreed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)  # The line of the question has not ended.
        raise ConfigError("nobody is there to be asked; say --yes to remove it") from None
