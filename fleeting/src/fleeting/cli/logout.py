"""`fleeting logout`: forget the credentials of a private package index."""

from __future__ import annotations

import os

import click

from fleeting.install.credentials import CredentialStore, host_of, split_url

__all__ = ("command",)


@click.command("logout")
@click.argument("url")
def command(*, url: str) -> int:
    """Forget the credentials of a private package index; exits with 1 if there were none.

    \b
    Example:
      fleeting logout https://packages.example.org/simple
    """  # noqa: D301 - click's mark of lines that stay as they are
    host = host_of(split_url(url)[0])
    if CredentialStore(os.environ).forget(host):
        click.echo(f"forgot the credentials for {host}")
        return 0
    click.echo(f"there are no credentials for {host}")
    return 1
