"""References to plugins in files and on the command line: `aws`, `aws:1`, or GitLab's longer form.

A reference is a name with an optional version. In GitLab Runner it is the address of an image, so
a registry and a repository may precede the name. Here a plugin is a Python distribution, so they
are ignored.

| reference | version |
|---|---|
| `aws`, `aws:latest` | any; an installation takes the newest |
| `aws:1` | 1.x.y |
| `aws:1.5` | 1.5.x |
| `aws:1.5.2` | exactly this one |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleeting.errors import ConfigError

__all__ = ("OUR_PLUGINS", "PREFIX", "PluginReference", "canonical", "parse_reference")

# The name of a plugin's distribution is this prefix and the name of the plugin.
PREFIX = "fleeting-plugin-"
LATEST = "latest"
# Our own plugins that are not built in: names to suggest when another one is misspelt.
OUR_PLUGINS = ("aws",)

_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9._:-]+/)*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<constraint>[A-Za-z0-9][A-Za-z0-9.+-]*))?"
)
_RELEASE = re.compile(r"\d+(?:\.\d+){0,2}")
_FULL = 3


@dataclass(frozen=True, slots=True)
class PluginReference:
    """A requested plugin.

    Attributes:
        name: the name of the plugin, which is also that of its entry point.
        constraint: a version or the beginning of one; empty for any version.
    """

    name: str
    constraint: str = ""

    @property
    def requirement(self) -> str:
        """Return the requirement for a package installer, such as `fleeting-plugin-aws==1.*`."""
        if not self.constraint:
            return PREFIX + self.name
        is_open = _RELEASE.fullmatch(self.constraint) and self.constraint.count(".") < _FULL - 1
        return f"{PREFIX}{self.name}=={self.constraint}{'.*' if is_open else ''}"

    def accepts(self, version: str) -> bool:
        """Return whether a version of the plugin meets the constraint."""
        if not self.constraint or version == self.constraint:
            return True
        if not _RELEASE.fullmatch(self.constraint):
            return False
        # A pre-release precedes its version, so it does not meet the constraint.
        release = re.match(r"(\d+(?:\.\d+)*)(?:\.post\d+|\+.*)?\Z", version)
        if release is None:
            return False
        wanted = self.constraint.split(".")
        found = release[1].split(".") + ["0"] * _FULL
        return [int(part) for part in wanted] == [int(part) for part in found[: len(wanted)]]

    def __str__(self) -> str:
        """Return the reference as in a file."""
        return f"{self.name}:{self.constraint}" if self.constraint else self.name


def parse_reference(text: str) -> PluginReference:
    """Return the reference for a text.

    Raises:
        ConfigError: the text is not a reference.
    """
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"{text[:200]!r} names no plugin; write a name such as aws, or one with a version "
            "such as aws:1"
        )
    constraint = match["constraint"] or ""
    if constraint not in {"", LATEST} and not re.match(r"v?\d", constraint):
        raise ConfigError(
            f"{text[:200]!r}: {constraint[:100]!r} is not a version; write for example "
            f"{match['name'][:100]}:1, or the name alone for the newest version"
        )
    name = match["name"].removeprefix(PREFIX) or match["name"]
    return PluginReference(name, "" if constraint == LATEST else constraint)


def canonical(distribution: str) -> str:
    """Return the normalized name of a distribution, which is the same for all its spellings."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
