"""`fleeting login`: keep the credentials of a private package index."""

from __future__ import annotations

import os
import sys

import click

from fleeting.errors import ConfigError, InstallError
from fleeting.install.credentials import Credential, CredentialStore, host_of, netrc_text, split_url
from fleeting.install.suggestions import fetch

__all__ = ("command",)

_REFUSALS = (401, 403)
_HERE = ("127.0.0.1", "::1", "localhost")


@click.command("login")
@click.argument("url")
@click.option("--username", metavar="NAME", help="Who you are; asked for if it is not given.")
@click.option(
    "--password-stdin", is_flag=True, help="Read the password, or token, from standard input."
)
def command(*, url: str, username: str | None, password_stdin: bool) -> None:
    """Keep the credentials of a private package index, for the host in its URL.

    They are tried once. A keyring keeps them if the package `keyring` is installed and works,
    otherwise a file that only you can read.

    \b
    Examples:
      fleeting login https://packages.example.org/simple
      echo "$TOKEN" | fleeting login https://packages.example.org/simple \\
          --username ci --password-stdin
    """  # noqa: D301 - click's mark of lines that stay as they are
    clean, given = split_url(url)
    if given is not None:
        raise ConfigError(
            "a password on a command line is seen by everybody on this machine; give the URL "
            "without it, and the password when it is asked for or with --password-stdin"
        )
    host = host_of(clean)
    if username is None:
        if password_stdin:
            raise ConfigError("--password-stdin needs --username, as nobody is there to be asked")
        username = click.prompt("Username", err=True)
    password = (
        sys.stdin.readline().rstrip("\r\n")
        if password_stdin
        else click.prompt("Password or token", hide_input=True, err=True)
    )
    if not username or not password:
        raise ConfigError("the user name and the password must not be empty")
    if clean.startswith("http://") and host not in _HERE:
        click.echo(f"warning: {clean} is read by everybody on the way; use https", err=True)
    credential = Credential(host, username, password)
    netrc_text([credential])  # Whether it can be kept is known before it is tried.
    status, _ = fetch(clean if "://" in clean else f"https://{clean}", [credential])
    if status in _REFUSALS:
        raise InstallError(
            f"{clean} refused these credentials (status {status}); nothing was kept", retryable=True
        )
    if not status:
        click.echo(f"warning: {clean} did not answer, so they could not be tried", err=True)
    where = CredentialStore(os.environ).keep(credential)
    click.echo(f"logged in to {host} as {username}; the password is in {where}")
