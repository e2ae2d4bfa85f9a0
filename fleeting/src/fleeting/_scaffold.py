"""Makes the project of a new plugin from the template in this package.

The templates are files that end in `.template`, so that no tool takes them for what they
will become.
"""

from __future__ import annotations

import os
import re
import tempfile
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

from fleeting._references import PREFIX, canonical
from fleeting._registry import Registry
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("PluginNames", "create_project", "names_of")

# From each template to what is made of it.
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
# Lines that a name stands in have to stay short enough for everybody's tools.
LONGEST_NAME = 40
_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?")


class PluginNames(NamedTuple):
    """What a plugin is called where.

    Attributes:
        name: in a file, as `plugin = "my-cloud"`, which is its entry point.
        distribution: when it is installed, such as `fleeting-plugin-my-cloud`.
        module: when it is imported, such as `fleeting_plugin_my_cloud`.
    """

    name: str
    distribution: str
    module: str


def names_of(text: str) -> PluginNames:
    """Return the names of a plugin that somebody wants to write.

    Args:
        text: its name; large letters become small ones, and dots and underscores dashes,
            because to those who install it they are the same.

    Raises:
        ConfigError: no distribution can be called so, or an installed plugin is.
    """
    name = canonical(text).removeprefix(PREFIX)
    if not text.isascii() or _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{text[:100]!r} cannot be the name of a plugin; write 1 to {LONGEST_NAME} letters, "
            "digits and dashes, such as my-cloud"
        )
    distribution = PREFIX + name
    for entry in Registry().providers():
        if entry.name == name and canonical(entry.distribution) != distribution:
            raise ConfigError(
                f"plugin {name!r} exists, in {entry.distribution} {entry.version}; "
                "choose another name"
            )
    return PluginNames(name, distribution, distribution.replace("-", "_"))


def create_project(names: PluginNames, folder: Path) -> list[str]:
    """Make the project of a plugin: all of its files, or nothing.

    Args:
        names: from `names_of`.
        folder: where; it must not exist.

    Returns:
        The paths of the files, below the folder.

    Raises:
        ConfigError: there is something already, or the folder above is missing.
        OSError: the system refused to write.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay what they are
    _check_place(folder)
    templates = resources.files("fleeting") / "templates"
    # On the same file system, so that all becomes visible in one moment.
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
            _check_place(folder)  # Somebody may have been faster.
            raise
    return sorted(paths)


def _check_place(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise ConfigError(f"{folder.parent}: there is no such directory; make it first")
    # Not even an empty folder is replaced: somebody's shell may be in it.
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} exists, and was not changed; choose another --directory")
