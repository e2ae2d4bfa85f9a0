"""`fleeting install`: plugins by name, by requirement, or from a path or a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleeting.errors import ConfigError
from fleeting.install.commands import Sources
from fleeting.install.credentials import CredentialStore, read_netrc, split_url
from fleeting.install.installing import Installation, Manner
from fleeting.install.requests import parse_wish, wish_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.install.contents import Contents
    from fleeting.install.credentials import Credential
    from fleeting.install.requests import Wish

__all__ = ("command",)


@click.command("install")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Without names: install the plugins that this file refers to. [default: config.toml]",
)
@click.option("--upgrade", is_flag=True, help="Replace what is installed by the newest that fits.")
@click.option("--dry-run", is_flag=True, help="Print the exact command, and change nothing.")
@click.option("--index-url", default="", metavar="URL", help="Ask this index, and not the usual.")
@click.option("--extra-index-url", multiple=True, metavar="URL", help="Ask this index as well.")
@click.option("--find-links", multiple=True, metavar="PLACE", help="Look in this folder or page.")
@click.option("--no-index", is_flag=True, help="Ask no index at all.")
@click.option(
    "-r",
    "--requirement",
    "requirement_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="Install the requirements in this file.",
)
@click.option("--require-hashes", is_flag=True, help="Take only what has a hash in a file of -r.")
@click.option("--pre", is_flag=True, help="Take pre-releases, too.")
@click.option("-v", "--verbose", is_flag=True, help="Show all that the package installer prints.")
def command(
    *,
    names: tuple[str, ...],
    config: Path | None,
    upgrade: bool,
    dry_run: bool,
    verbose: bool,
    index_url: str,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
    no_index: bool,
    requirement_files: tuple[str, ...],
    require_hashes: bool,
    pre: bool,
) -> None:
    """Install plugins: all of them, or none if one cannot be had.

    NAME is the name of a plugin, as in `aws`, perhaps with a version, as in `aws:1` or
    `aws:1.5`; a requirement such as 'fleeting-plugin-aws>=1.2'; or the path or URL of a
    wheel or of a project. Without one, all plugins that the config file refers to are installed.

    \b
    Examples:
      fleeting install aws:1
      fleeting install -c /etc/taskscaler/config.toml
      fleeting install --no-index --find-links ./wheels aws docker
      fleeting install --dry-run ./my-plugin
    """  # noqa: D301 - click's mark of lines that stay as they are
    credentials: list[Credential] = []
    words, extra, links = (
        tuple(_without_credentials(one, credentials) for one in some)
        for some in (names, extra_index_url, find_links)
    )
    sources = Sources(
        index_url=_without_credentials(index_url, credentials),
        extra_index_urls=extra,
        find_links=links,
        no_index=no_index,
        requirement_files=requirement_files,
        require_hashes=require_hashes,
        pre=pre,
    )
    wishes = _wishes(words, config, sources)
    if not wishes and not requirement_files:
        return
    manner = Manner(
        sources=sources,
        credentials=_all_credentials(credentials),
        tell=lambda sentence: click.echo(sentence, err=True),
        upgrade=upgrade,
        verbose=verbose,
    )
    installation = Installation(manner)
    if dry_run:
        line = installation.preview(wishes)
        click.echo(line or "# nothing to do: what is installed fits already")
        return
    _report(installation.run(wishes))


def _wishes(words: Sequence[str], config: Path | None, sources: Sources) -> list[Wish]:
    """Return what is to be installed, besides what the files of requirements say."""
    files = sources.requirement_files
    if sources.require_hashes and not files:
        raise ConfigError("--require-hashes needs a file with hashes; name it with -r")
    if [bool(words), bool(files), config is not None].count(True) > 1:
        raise ConfigError("give names, or a config file with -c, or one of requirements with -r")
    if words or files:
        return [parse_wish(word) for word in dict.fromkeys(words)]
    return _configured(config or Path("config.toml"))


def _without_credentials(word: str, found: list[Credential]) -> str:
    name, at, place = word.partition("@ ")
    url, credential = split_url(place.strip() if at else word)
    if credential is None:
        return word
    found.append(credential)
    return f"{name}@ {url}" if at else url


def _all_credentials(given: Sequence[Credential]) -> list[Credential]:
    """Return the credentials: those given now win over those kept, and these over the user's."""
    kept = CredentialStore(os.environ).all()
    if not given and not kept:
        return []  # The installer reads the user's own file by itself.
    path = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))  # noqa: PTH111
    try:
        own = read_netrc(path)
    except (ConfigError, OSError):
        own = []  # It would be of no use to the installer either.
    return [*own, *kept, *given]


def _configured(path: Path) -> list[Wish]:
    """Return the plugins that a config file refers to."""
    # Imported late: it brings what reads a config file, which is not cheap.
    from fleeting._config import configured_groups, plugin_references

    references = plugin_references(configured_groups(path))
    if not references:
        click.echo(f"warning: {path} refers to no plugin; nothing was installed", err=True)
    return [wish_for(reference) for reference in references]


def _report(installed: Sequence[Contents]) -> None:
    for one in installed:
        if one.plugins:
            names = ", ".join(one.plugins)
            click.echo(f"installed {names} {one.version} ({one.name})")
    others = [f"{one.name} {one.version}" for one in installed if not one.plugins]
    if others:
        click.echo(f"and what they need: {', '.join(sorted(others))}")
