"""`fleeting logout`: remove the credentials of a package index from the keyring."""

from __future__ import annotations

import click

from fleeting._text import say
from fleeting.cli.login import opened_keyring

__all__ = ("command",)


@click.command("logout")
@click.argument("url")
@click.option("--username", metavar="NAME", help="The user name; some keyrings need it.")
def command(*, url: str, username: str | None) -> int:
    """Remove the credentials of a private package index from the keyring.

    Exit code: 0, or 1 if there were none.
    """
    with opened_keyring(url) as (keyring, host):
        found = keyring.get_credential(host, username)
        if found is None:
            whose = f" and {username}" if username else "; some keyrings need --username"
            say(f"the keyring has no password for {host}{whose}")
            return 1
        keyring.delete_password(host, found.username)
    say(f"removed the password of {found.username} for {host} from the keyring")
    return 0
