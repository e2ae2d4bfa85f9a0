"""How a file and a command line name a plugin: `aws`, `aws:1`, GitLab's longer forms.

A reference is a name and perhaps a constraint on the version. GitLab's may have a registry
and a repository in front of the name, and there the whole is the address of an image; here a
plugin is a distribution of the Python package index, so what stands in front says nothing.

| reference | version |
|---|---|
| `aws`, `aws:latest` | any; the newest when it is installed |
| `aws:1` | 1.x.y |
| `aws:1.5` | 1.5.x |
| `aws:1.5.2` | exactly this one |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleeting.errors import ConfigError

__all__ = ("PREFIX", "PluginReference", "canonical", "parse_reference")

# A plugin's distribution is named for it.
PREFIX = "fleeting-plugin-"
LATEST = "latest"

_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9._:-]+/)*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<constraint>[A-Za-z0-9][A-Za-z0-9.+-]*))?"
)
_RELEASE = re.compile(r"\d+(?:\.\d+){0,2}")
_FULL = 3


@dataclass(frozen=True, slots=True)
class PluginReference:
    """A plugin as somebody asks for it.

    Attributes:
        name: of the plugin, as its entry point has it.
        constraint: the beginning of a version, or a whole one; empty if any will do.
    """

    name: str
    constraint: str = ""

    @property
    def requirement(self) -> str:
        """Return the same for a package installer, such as `fleeting-plugin-aws==1.*`."""
        if not self.constraint:
            return PREFIX + self.name
        is_open = _RELEASE.fullmatch(self.constraint) and self.constraint.count(".") < _FULL - 1
        return f"{PREFIX}{self.name}=={self.constraint}{'.*' if is_open else ''}"

    def accepts(self, version: str) -> bool:
        """Return whether a version of the plugin is one that was asked for."""
        if not self.constraint or version == self.constraint:
            return True
        if not _RELEASE.fullmatch(self.constraint):
            return False
        # A pre-release of what was asked for comes before it, and so is none.
        release = re.match(r"(\d+(?:\.\d+)*)(?:\.post\d+|\+.*)?\Z", version)
        if release is None:
            return False
        wanted = self.constraint.split(".")
        found = release[1].split(".") + ["0"] * _FULL
        return [int(part) for part in wanted] == [int(part) for part in found[: len(wanted)]]

    def __str__(self) -> str:
        """Write it as a file would."""
        return f"{self.name}:{self.constraint}" if self.constraint else self.name


def parse_reference(text: str) -> PluginReference:
    """Read a reference.

    Raises:
        ConfigError: the text is none.
    """
    match = _REFERENCE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"{text[:200]!r} names no plugin; write a name such as aws, or one with a version "
            "such as aws:1"
        )
    constraint = match["constraint"] or ""
    name = match["name"].removeprefix(PREFIX) or match["name"]
    return PluginReference(name, "" if constraint == LATEST else constraint)


def canonical(distribution: str) -> str:
    """Return the normalized name of a distribution, by which two spellings are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
