"""`fleeting logout`: remove the credentials of a package index from the keyring."""

from __future__ import annotations

import click

from fleeting._text import say
from fleeting.cli.login import index_host, opened_keyring

__all__ = ("command",)


@click.command("logout")
@click.argument("url")
@click.option("--username", metavar="NAME", help="The user name; some keyrings need it.")
def command(*, url: str, username: str | None) -> int:
    """Remove the credentials of a private package index from the keyring.

    Exit code: 0, or 1 if there were none.
    """
    host = index_host(url)
    name = host.partition(":")[0]
    with opened_keyring(f"remove the line of {name} from ~/.netrc if it is there") as keyring:
        found = keyring.get_credential(host, username)
        if found is None:
            whose = "" if username is None else f" of {username}"
            hint = "; some keyrings need --username" if username is None else ""
            say(f"the keyring has no password{whose} for {host}{hint}")
            return 1
        keyring.delete_password(host, found.username)
    say(f"removed the password of {found.username} for {host} from the keyring")
    return 0
