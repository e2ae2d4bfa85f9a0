"""`fleeting install`: plugins by name, by requirement, or from a path or a URL."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from fleeting._text import say
from fleeting.install.changing import Change
from fleeting.install.checking import installed_plugins
from fleeting.install.commands import shown
from fleeting.install.requests import OURS, Request, parse_request, request_for, satisfied_by

__all__ = ("command",)

_tell = partial(say, err=True)


class _PassingOn(click.Command):
    """A command that leaves what follows `--` to the installer."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.obj = args[end + 1 :]
        return super().parse_args(ctx, args[:end])


@click.command("install", cls=_PassingOn)
@click.argument("names", nargs=-1, metavar="[NAME]... [-- INSTALLER_OPTION...]")
@click.option(
    "-c", "--config", default="config.toml", help="Without names: read config.toml or this file."
)
@click.option("--upgrade", is_flag=True, help="Replace installed versions by the newest ones.")
@click.option("--dry-run", is_flag=True, help="Print the installer's command; do not run it.")
@click.option("--index-url", metavar="URL", help="Use this index instead of the configured one.")
@click.option("--extra-index-url", multiple=True, metavar="URL", help="Use this index as well.")
@click.option("--find-links", multiple=True, metavar="PLACE", help="Use this folder or page.")
@click.option("--no-index", is_flag=True, help="Use no index.")
@click.option("--pre", is_flag=True, help="Allow pre-releases.")
@click.pass_obj
def command(
    passed_on: list[str],
    *,
    names: tuple[str, ...],
    config: str,
    upgrade: bool,
    dry_run: bool,
    index_url: str | None,
    extra_index_url: tuple[str, ...],
    find_links: tuple[str, ...],
    no_index: bool,
    pre: bool,
) -> None:
    """Install plugins with the installer of this Python environment, and check them.

    NAME is the name of a plugin, as in `aws`, with a version if needed, as in `aws:1` or
    'aws>=1.2'; or the path or URL of a wheel or of a project. Without a name, the plugins that
    the config file refers to are installed. Options after -- are passed on to the installer.

    \b
    Examples:
      fleeting install aws:1
      fleeting install --no-index --find-links ./wheels aws docker

    Exit code: 0; 1 if a plugin does not work, and was removed again; 2 if the input is wrong; 3
    if the installer failed; 130 if it was interrupted.
    """  # noqa: D301 - click's mark of lines that stay as they are
    places = [f"--index-url={index_url}"] if index_url else []
    places += [f"--extra-index-url={url}" for url in extra_index_url]
    # Absolute paths, because pipx changes the working directory.
    folders = {place: Path(place) for place in find_links}
    places += [f"--find-links={p.resolve() if p.exists() else s}" for s, p in folders.items()]
    places += ["--no-index"] * no_index
    requests = [parse_request(name) for name in dict.fromkeys(names)] or _configured(Path(config))
    pending = [request for request in requests if not _is_satisfied(request, upgrade=upgrade)]
    if not pending:
        return
    change = Change(_tell, places)
    line = change.command(pending, [*["--pre"] * pre, *passed_on], upgrade=upgrade)
    if dry_run:
        say(shown(line))
        return
    plugins, others = change.install(line, pending)
    for entry in plugins:
        say(f"installed {entry.name} {entry.version} ({entry.distribution})")
    if others:
        say(f"also installed: {', '.join(others)}")


def _is_satisfied(request: Request, *, upgrade: bool) -> bool:
    entry = satisfied_by(request, (entry for _, entry in installed_plugins()))
    if entry is None or (upgrade and entry.distribution != OURS):
        return False
    _tell(f"{entry.name} {entry.version} ({entry.distribution}) is already installed")
    return True


def _configured(path: Path) -> list[Request]:
    # Imported late: a library that reads a config file takes time to import.
    from fleeting._config import configured_groups, plugin_references

    references = plugin_references(configured_groups(path))
    if not references:
        _tell(f"warning: {path} refers to no plugin; nothing was installed")
    return [request_for(reference) for reference in references]
