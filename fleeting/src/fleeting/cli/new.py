"""`fleeting new`: creates the project of a new plugin."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from fleeting._text import plain, say_json, show

__all__ = ("command",)


@click.command("new")
@click.argument("name")
@click.option(
    "-d",
    "--directory",
    type=click.Path(path_type=Path),
    help="The directory to create; it must not exist.  [default: NAME]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
def command(*, name: str, directory: Path | None, as_json: bool) -> None:
    """Create the project of a new plugin NAME: a module, its tests and its packaging.

    The generated plugin works: its instances exist in memory only, and its tests check the
    whole contract. Existing files are never overwritten.

    \b
    Examples:
      fleeting new my-cloud
      fleeting new my-cloud --directory ~/src/fleeting-plugin-my-cloud

    Exit code: 0, 2 if the name or directory cannot be used, 3 if writing failed.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    from fleeting._scaffold import create_project, install_command, names_of

    names = names_of(name)
    folder = directory if directory is not None else Path(names.name)
    files = create_project(names, folder)
    if as_json:
        say_json(json.dumps({**names._asdict(), "directory": str(folder), "files": files}))
        return
    module = next(file for file in files if file.endswith("/__init__.py"))
    place, quoted = plain(str(folder)), plain(shlex.quote(str(folder)))
    show(
        f"created plugin {names.name!r} ({names.distribution}) in {place}\n"
        f"\n"
        f"Its tests pass as generated:\n"
        f"  cd {quoted}\n"
        f"  python3 -m venv .venv && . .venv/bin/activate\n"
        f"  {install_command()}\n"
        f"  pytest\n"
        f"  fleeting list --verify\n"
        f"\n"
        f"Then edit {plain(module)}.\n"
    )
