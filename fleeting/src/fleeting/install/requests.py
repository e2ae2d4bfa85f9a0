"""Read what the operator asks for: `aws`, `aws:1`, `aws>=1.2`, a path, a wheel, a URL."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from fleeting._references import OUR_PLUGINS, PREFIX, canonical, parse_reference
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fleeting._metadata import PluginEntry
    from fleeting._references import PluginReference

__all__ = ("OURS", "Request", "did_you_mean", "parse_request", "request_for", "satisfied_by")

# The distribution of the built-in plugins.
OURS = "fleeting"

_URL = re.compile(r"(?:git\+)?[A-Za-z][A-Za-z0-9+.-]*://\S+")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?P<rest>\s*(?:\[|[<>=!~]=|[<>;]).*)"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to install, with the requirement for the installer."""

    requirement: str
    distribution: str = ""  # Its normalized name; empty if only a build would tell.
    plugin: str = ""  # The name that the distribution must register; empty if any will do.
    reference: PluginReference | None = None  # If the request is no more than name and version.


def parse_request(word: str) -> Request:
    """Read a word of the command line, or raise `ConfigError`."""
    text = word.strip()
    if _URL.fullmatch(text):
        return Request(text, _wheel_name(unquote(urlsplit(text).path)))
    if text.startswith((".", "/", "~")) or text.lower().endswith((".whl", ".tar.gz", ".zip")):
        try:
            path = str(Path(text).expanduser().resolve(strict=True))
        except (OSError, RuntimeError):  # The latter if `~user` is unknown.
            raise ConfigError(f"{word} does not exist; give a project or a wheel") from None
        return Request(path, _wheel_name(path))
    if match := _REQUIREMENT.fullmatch(text):
        plugin = match["name"].removeprefix(PREFIX)
        return Request(PREFIX + plugin + match["rest"], canonical(PREFIX + plugin), plugin)
    return request_for(parse_reference(text))


def request_for(reference: PluginReference) -> Request:
    """Return the request for a plugin by name: never a path or a URL."""
    distribution = canonical(PREFIX + reference.name)
    return Request(reference.requirement, distribution, reference.name, reference)


def _wheel_name(path: str) -> str:
    name = path.rpartition("/")[2]
    return canonical(name.partition("-")[0]) if name.endswith(".whl") else ""


def satisfied_by(request: Request, installed: Iterable[PluginEntry]) -> PluginEntry | None:
    """Return the installed plugin that was asked for; refuse another version of a built-in one."""
    for entry in installed:
        if request.reference and request.reference.name == entry.name:
            if request.reference.accepts(entry.version):
                return entry
            if entry.distribution == OURS:
                raise ConfigError(
                    f"{entry.name} is built into fleeting {entry.version}; for another version of "
                    "it, install another version of fleeting"
                )
    return None


def did_you_mean(requests: Iterable[Request]) -> str:
    """Return a hint for requested names that resemble one of our own plugins, or an empty text."""
    return "".join(
        f"; did you mean {near[0]} instead of {request.plugin}?"
        for request in requests
        if request.plugin not in OUR_PLUGINS
        and (near := difflib.get_close_matches(request.plugin, OUR_PLUGINS, n=1))
    )
