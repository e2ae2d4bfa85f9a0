"""What a person asks to be installed: `aws`, `aws:1`, `fleeting-plugin-aws>=1.2`, a path, a URL."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fleeting._references import PREFIX, canonical, parse_reference
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from fleeting._references import PluginReference
    from fleeting._registry import PluginEntry

__all__ = ("Wish", "holder", "parse_wish", "renamed", "wish_for")

_URL = re.compile(r"(?:git\+)?[A-Za-z][A-Za-z0-9+.-]*://\S+")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9 ,._-]*\])?"
    r"\s*(?:(?:===|==|~=|!=|<=|>=|<|>)[^@;]*)?(?:;\s*\S.*)?"
)
_ARCHIVES = (".whl", ".tar.gz", ".zip")


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing to install.

    Attributes:
        word: as it was written, for messages.
        requirement: the same for a package installer.
        distribution: its normalized name; empty if only a build would tell.
        reference: of the plugin, if it was asked for by name.
        is_direct: whether it is taken from one place, a path or a URL, whatever version is there.
    """

    word: str
    requirement: str
    distribution: str = ""
    reference: PluginReference | None = None
    is_direct: bool = False

    @property
    def plugin(self) -> str:
        """Return the plugin's name, if the word says which it is."""
        return self.reference.name if self.reference else ""

    def is_satisfied(self, entries: list[PluginEntry]) -> bool:
        """Return whether one of the installed plugins is what is asked for."""
        return self.reference is not None and any(
            entry.name == self.reference.name and self.reference.accepts(entry.version)
            for entry in entries
        )


def parse_wish(word: str) -> Wish:
    """Read a word of the command line.

    Raises:
        ConfigError: it is nothing that could be installed; or a path where nothing is.
    """
    text = word.strip()
    if text.startswith("-"):
        raise ConfigError(f"{word!r} is an option, and no plugin; see `fleeting install --help`")
    if _URL.fullmatch(text):
        return Wish(word, text, _from_file_name(urlsplit(text).path), is_direct=True)
    if text.startswith((".", "/", "~")) or text.lower().endswith(_ARCHIVES):
        return _path_wish(word, text)
    name, at, place = (part.strip() for part in text.partition("@"))
    if at and _URL.fullmatch(place) and _REQUIREMENT.fullmatch(name):
        return Wish(word, f"{name} @ {place}", canonical(_bare(name)), is_direct=True)
    if any(character in text for character in "<>=!~[;"):
        if not _REQUIREMENT.fullmatch(text):
            raise ConfigError(
                f"{word!r} is no requirement; write one such as 'fleeting-plugin-aws>=1.2'"
            )
        return Wish(word, text, canonical(_bare(text)))
    return replace(wish_for(parse_reference(text)), word=word)


def wish_for(reference: PluginReference) -> Wish:
    """Return the wish for a plugin that a file refers to, which is never a path or a URL."""
    distribution = canonical(PREFIX + reference.name)
    return Wish(str(reference), reference.requirement, distribution, reference)


def _bare(requirement: str) -> str:
    match = _REQUIREMENT.fullmatch(requirement)
    return match["name"] if match else ""


def _path_wish(word: str, text: str) -> Wish:
    try:
        whole = Path(text).expanduser().resolve(strict=True)
    except (OSError, RuntimeError):  # No such file, one too long to exist, or no such user.
        raise ConfigError(
            f"there is nothing at {word}; give the path of a project or of a wheel"
        ) from None
    if whole.is_dir():
        project = whole / "pyproject.toml"
        if not project.exists() and not (whole / "setup.py").exists():
            raise ConfigError(f"{word} has no pyproject.toml; give the folder of a project")
        return Wish(word, str(whole), _project_name(project), is_direct=True)
    return Wish(word, str(whole), _from_file_name(whole.name), is_direct=True)


def _project_name(project: Path) -> str:
    try:
        table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return ""  # The build will say what is wrong with it.
    name = table.get("name", "")
    return canonical(name) if isinstance(name, str) else ""


def _from_file_name(path: str) -> str:
    """Return the distribution that an archive is named for."""
    name = unquote(path.rpartition("/")[2])
    if name.endswith(".whl"):
        return canonical(name.partition("-")[0])
    match = re.fullmatch(r"(.+)-\d[^-]*(?:\.tar\.gz|\.zip)", name)
    return canonical(match[1]) if match else ""


def holder(wish: Wish, entries: list[PluginEntry]) -> str:
    """Return the distribution that has the plugin's name now, or an empty text.

    A plugin need not come from the distribution that is named for it, and if it does not, it is
    to be upgraded where it comes from, rather than joined by a second one of its name.
    """
    names = {canonical(entry.distribution) for entry in entries if entry.name == wish.plugin}
    return names.pop() if len(names) == 1 else ""


def renamed(wish: Wish, distribution: str) -> Wish:
    """Return the wish for a plugin that comes from another distribution than usual."""
    if wish.reference is None or not distribution or distribution == wish.distribution:
        return wish
    constraint = wish.requirement.removeprefix(PREFIX + wish.reference.name)
    return replace(wish, requirement=distribution + constraint, distribution=distribution)
