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

GitLab Runner also takes the path of a program. A program cannot be loaded here, so its file name
names the plugin, and the reference has a note that says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fleeting.errors import ConfigError

__all__ = ("OUR_PLUGINS", "PREFIX", "PluginReference", "canonical", "parse_reference")

# The name of a plugin's distribution is this prefix and the name of the plugin.
PREFIX = "fleeting-plugin-"
LATEST = "latest"
# Our own plugins that are not built in: names to suggest when another one is misspelt.
OUR_PLUGINS = ("aws", "azure", "googlecloud")

_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9._:-]+/)*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?::(?P<constraint>[A-Za-z0-9][A-Za-z0-9.+-]*))?"
)
_RELEASE = re.compile(r"\d+(?:\.\d+){0,2}")
_FULL = 3
# The file name of a program, after any folders of Unix or Windows.
_PROGRAM = re.compile(
    r"(?P<folders>(?:[A-Za-z]:|~[\w-]*|\.{1,2})?[\\/](?:.*[\\/])?)?(?P<file>[^\\/]+?)(?P<exe>\.exe)?",
    re.IGNORECASE | re.DOTALL,
)
_GITLABS_REGISTRY = "registry.gitlab.com/"
# The names of GitLab's own plugins that differ from ours.
_GITLABS_NAMES = {"googlecompute": "googlecloud"}


@dataclass(frozen=True, slots=True)
class PluginReference:
    """A requested plugin.

    Attributes:
        name: the name of the plugin, which is also that of its entry point.
        constraint: a version or the beginning of one; empty for any version.
        note: how the text was understood, if it names a program of GitLab Runner; or empty.
    """

    name: str
    constraint: str = ""
    note: str = field(default="", compare=False)

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
    """Return the reference to a plugin that a text such as `aws:1` means.

    Raises:
        ConfigError: the text is not a reference.
    """
    written = text.strip()
    program = _PROGRAM.fullmatch(written)
    is_program = program is not None and bool(program["folders"] or program["exe"])
    match = _REFERENCE.fullmatch(program["file"] if program is not None and is_program else written)
    if match is None or (is_program and not _is_known(match["name"])):
        kind = "is a path, not the name of a plugin" if is_program else "names no plugin"
        raise ConfigError(
            f"{text[:200]!r} {kind}; write a name such as aws, or one with a version such as aws:1"
        )
    constraint = match["constraint"] or ""
    if constraint not in {"", LATEST} and not re.match(r"v?\d", constraint):
        raise ConfigError(
            f"{text[:200]!r}: {constraint[:100]!r} is not a version; write for example "
            f"{match['name'][:100]}:1, or the name alone for the newest version"
        )
    name = _our_name(match["name"])
    if is_program or written.startswith(_GITLABS_REGISTRY):
        # The versions of GitLab's program say nothing about those of the Python package.
        note = f"{text[:200]!r} is a program for GitLab Runner; the plugin {name!r} is used instead"
        return PluginReference(name, note=note)
    renamed = name != match["name"].removeprefix(PREFIX)
    note = f"{text[:200]!r} means the plugin {name!r}" if renamed else ""
    return PluginReference(name, "" if constraint == LATEST else constraint, note)


def _is_known(name: str) -> bool:
    return name.lower().startswith(PREFIX) or _our_name(name) in OUR_PLUGINS


def _our_name(name: str) -> str:
    """Return the name of a plugin, also if it was written as GitLab's program is named."""
    bare = name.removeprefix(PREFIX) or name
    folded = name.lower().removeprefix(PREFIX)
    folded = _GITLABS_NAMES.get(folded, folded)
    # Only the names of our own plugins are known to have no capitals.
    return folded if folded in OUR_PLUGINS else bare


def canonical(distribution: str) -> str:
    """Return the normalized name of a distribution, which is the same for all its spellings."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
