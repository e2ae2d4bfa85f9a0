"""Creates the project of a new plugin from the templates in this package.

Template files end in `.template`, so that no tool mistakes them for Python or TOML.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fleeting._references import PREFIX, canonical
from fleeting._registry import Registry
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("PluginNames", "create_project", "install_command", "names_of")

# Each template, and the path of the file that it becomes.
FILES: Mapping[str, str] = {
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "gitlab-ci.yml": ".gitlab-ci.yml",
    "module.py": "src/$module/__init__.py",
    "py.typed": "src/$module/py.typed",
    "pyproject.toml": "pyproject.toml",
    "test_contract.py": "tests/test_contract.py",
}
# Longer names would make lines of the project too long for linters.
LONGEST_NAME = 40
_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?")


class PluginNames(NamedTuple):
    """The names of a plugin.

    Attributes:
        name: in a config file, as in `plugin = "my-cloud"`; also its entry point.
        distribution: for installers, such as `fleeting-plugin-my-cloud`.
        module: for imports, such as `fleeting_plugin_my_cloud`.
    """

    name: str
    distribution: str
    module: str


def names_of(text: str) -> PluginNames:
    """Return the names of a new plugin.

    Args:
        text: the wanted name; it becomes lower case, and dots and underscores become dashes,
            because installers treat them as the same.

    Raises:
        ConfigError: the name is not valid, or an installed plugin has it.
    """
    name = canonical(text).removeprefix(PREFIX)
    if not text.isascii() or _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{text[:100]!r} is not a valid plugin name; use 1 to {LONGEST_NAME} letters, digits "
            "and dashes, such as my-cloud"
        )
    distribution = PREFIX + name
    for entry in Registry().providers():
        if entry.name == name and canonical(entry.distribution) != distribution:
            raise ConfigError(
                f"plugin {name!r} already exists in {entry.distribution} {entry.version}; "
                "choose another name"
            )
    return PluginNames(name, distribution, distribution.replace("-", "_"))


def create_project(names: PluginNames, folder: Path) -> list[str]:
    """Create the project of a plugin: all of its files, or nothing.

    Args:
        names: from `names_of`.
        folder: the directory to create; it must not exist.

    Returns:
        The paths of the files, below the folder.

    Raises:
        ConfigError: the folder exists, or its parent does not.
        OSError: the files could not be written.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - it must not resolve links
    _check_place(folder)
    templates = resources.files("fleeting") / "templates"
    # On the same file system, so that one rename makes the whole project visible.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as above:
        project = Path(above, "project")
        project.mkdir()
        paths: list[str] = []
        for source, target in FILES.items():
            template = Template((templates / f"{source}.template").read_text("utf-8"))
            paths.append(Template(target).substitute(names._asdict()))
            path = project / paths[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(template.substitute(names._asdict()), "utf-8")
        try:
            project.rename(folder)
        except OSError:
            _check_place(folder)  # Another process may have created it.
            raise
    return sorted(paths)


def install_command() -> str:
    """Return what installs a new project, with the `fleeting` that is installed here.

    One that was installed from a folder may not be on a package index, so pip gets the folder.
    """
    told = metadata.distribution("fleeting").read_text("direct_url.json")
    url = str(json.loads(told or "{}").get("url", ""))
    folder = url2pathname(urlsplit(url).path) if url.startswith("file:") else ""
    return " ".join(["pip install", *([shlex.quote(folder)] if folder else []), '-e ".[dev]"'])


def _check_place(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise ConfigError(f"directory {folder.parent} does not exist; create it first")
    # An empty folder is not replaced either: a shell may be working in it.
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} exists and was not changed; choose another --directory")
