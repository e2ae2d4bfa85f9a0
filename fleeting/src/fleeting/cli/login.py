"""`fleeting login`: store the credentials of a package index in the keyring."""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fleeting._text import plain, say
from fleeting.errors import ConfigError, InstallError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("command", "index_host", "opened_keyring")


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
    host = index_host(url)
    if username is None and password_stdin:
        raise ConfigError("--password-stdin needs --username")
    name = host.partition(":")[0]
    line = f"`machine {name} login {plain(username or 'NAME')} password SECRET`"
    with opened_keyring(f"write {line} into ~/.netrc (mode 0600)") as keyring:
        username = username or click.prompt("Username", err=True)
        password = (
            sys.stdin.readline().rstrip("\r\n")
            if password_stdin
            else click.prompt("Password or token", hide_input=True, err=True)
        )
        keyring.set_password(host, username, password)
    say(f"stored the password of {username} for {host} in the keyring")


def index_host(url: str) -> str:
    """Return the name under which pip and uv look for an index in a keyring."""
    match = re.fullmatch(r"https?://([^/@\s?#]+)(?:/[^@\s]*)?", url)
    if match is None:
        raise ConfigError(
            "URL must be the address of an index without credentials, such as "
            "https://packages.example.org/simple"
        )
    return match[1]


@contextmanager
def opened_keyring(otherwise: str) -> Generator[Any]:
    """Yield the module `keyring`, and raise `InstallError` if it or its backend fails.

    Args:
        otherwise: what the operator can do without a keyring, for the message.
    """
    try:
        yield importlib.import_module("keyring")
    except (ConfigError, click.Abort):
        raise
    except Exception as error:
        raise InstallError(
            f"no keyring can be used ({type(error).__name__}: {error}); install the package "
            f"`keyring` in the environment of fleeting and unlock your keyring, or {otherwise}",
            retryable=True,
        ) from error
