"""`fleeting list`: which plugins are installed, as their metadata says; none is imported."""

from __future__ import annotations

import click

from fleeting.registry import Registry

__all__ = ("command",)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def command(*, as_json: bool) -> None:
    """Show the installed plugins: name, version, and the distribution that carries each.

    No plugin is imported, so that one that is shown can still be broken.
    """
    entries = Registry().providers()
    if as_json:
        import json

        click.echo(json.dumps([entry._asdict() for entry in entries], indent=2))
        return
    rows = [("NAME", "VERSION", "DISTRIBUTION")]
    rows += [(entry.name, entry.version, entry.distribution) for entry in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
