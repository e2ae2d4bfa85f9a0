"""`fleeting login`: store the credentials of a package index in the keyring."""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fleeting._text import say
from fleeting.errors import ConfigError, InstallError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("command", "opened_keyring")


@click.command("login")
@click.argument("url")
@click.option("--username", metavar="NAME", help="The user name; asked for if it is missing.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def command(*, url: str, username: str | None, password_stdin: bool) -> None:
    """Store the credentials of a private package index in the keyring, where installers look.

    This needs the package `keyring`. Without it, write the credentials into ~/.netrc.

    \b
    Example:
      fleeting login https://packages.example.org/simple --username ci
    """  # noqa: D301 - click's mark of lines that stay as they are
    if username is None and password_stdin:
        raise ConfigError("--password-stdin needs --username")
    with opened_keyring(url) as (keyring, host):
        username = username or click.prompt("Username", err=True)
        if password_stdin:
            password = sys.stdin.readline().rstrip("\r\n")
        else:
            password = click.prompt("Password or token", hide_input=True, err=True)
        keyring.set_password(host, username, password)
    say(f"stored the password of {username} for {host} in the keyring")


@contextmanager
def opened_keyring(url: str) -> Generator[tuple[Any, str]]:
    """Yield the module `keyring`, and the name under which pip and uv look for an index in it."""
    match = re.fullmatch(r"https?://([^/@\s?#]+)(?:/[^@\s]*)?", url)
    if match is None:
        raise ConfigError(
            "URL must be the address of an index without credentials, like https://x.example/simple"
        )
    try:
        yield importlib.import_module("keyring"), match[1]
    except (ConfigError, click.Abort):
        raise
    except Exception as error:
        line = f"`machine {match[1].partition(':')[0]} login NAME password SECRET`"
        raise InstallError(
            f"no keyring can be used ({type(error).__name__}: {error}); install the package "
            "`keyring` in the environment of fleeting and unlock your keyring, or write or remove "
            f"the line {line} in ~/.netrc (mode 0600)",
            retryable=True,
        ) from error
