"""The runners of a `config.toml`: the keys that matter for scaling, and the state file of each."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from taskscaler.config.autoscaler import AutoscalerConfig

__all__ = ("FileConfig", "Identity", "RunnerConfig", "short_token")

_STORE = ".sqlite"
_STATE_DIRECTORY = Path(".taskscaler")
# File names may have 255 bytes, and SQLite appends to the name for its own files.
_IDENTITY_LENGTH = 150
# GitLab's prefixes say what kind of token it is; the rest differs between runners.
_TOKEN_PREFIX = re.compile(r"glrtr?-(?:t\d+_)?|GR1348941")
_SHORT_TOKEN = 9
_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """The name under which the state of a runner is kept.

    Attributes:
        name: the name of the file without its suffix; contains no secret.
        source: the settings that it is made from, for the operator.
    """

    name: str
    source: str


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[[runners]]`: the keys that matter for scaling."""

    name: Annotated[
        str, Meta(description="A name for messages; without `url`, it also names the state.")
    ] = ""
    id: Annotated[int | None, Meta(description="The number of the runner at the server.")] = None
    url: Annotated[str, Meta(description="The URL of the server.")] = ""
    # The reader of the file keeps nothing else of the token.
    short_token: Annotated[
        str,
        Meta(
            description="The token of the runner; without `id`, its start names the state.",
            # This start is public: GitLab shows it, too.
            extra_json_schema={"writeOnly": False},
        ),
    ] = msgspec.field(name="token", default="")
    executor: Annotated[
        str, Meta(description="The executor of its jobs; used in messages only.")
    ] = ""
    limit: Annotated[int, Meta(description="The most jobs at once; 0 means no limit.")] = 0
    request_concurrency: Annotated[
        int, Meta(description="The most requests for jobs at once; 0 means 1.")
    ] = 0
    autoscaler: Annotated[
        AutoscalerConfig | None,
        Meta(description="How its instances are scaled."),
    ] = None

    def identity(self, config_path: Path) -> Identity:
        """Return the name of its state file and how it came about.

        It is `extensions.id`; else it is made from URL and id, or from URL and the start of the
        token, as GitLab names such a folder; else from the names of the file and of the runner.

        Args:
            config_path: the configuration file.
        """
        if self.autoscaler is not None and self.autoscaler.extensions.id is not None:
            return Identity(self.autoscaler.extensions.id, "id")
        address = _address(self.url)
        if address and self.id:
            return Identity(_file_name(address, str(self.id)), "url and id of the runner")
        if address and self.short_token:
            return Identity(_file_name(address, self.short_token), "url and token of the runner")
        parts = [config_path.name, *([self.name] if self.name else [])]
        folder = self.autoscaler.state_storage.dir if self.autoscaler is not None else None
        if folder is not None and folder.is_absolute():
            # Files of several folders may keep their state there.
            here = str(config_path.parent.resolve()).encode(errors="surrogateescape")
            parts.append(hashlib.sha256(here).hexdigest()[:8])
        return Identity(_file_name(*parts), "the names of the file and of the runner")

    def shown_url(self) -> str:
        """Return the URL without user and password."""
        return f"{self.url.partition('://')[0]}://{_address(self.url)}" if self.url else ""

    def state_path(self, config_path: Path) -> Path | None:
        """Return its state file; None if the state is not kept.

        Args:
            config_path: the configuration file; a relative `dir` is relative to its folder.
        """
        if self.autoscaler is None or self.autoscaler.state_storage.enabled is False:
            return None
        # The identity may contain dots, so this is not `with_suffix`.
        name = self.identity(config_path).name + _STORE
        return config_path.parent / (self.autoscaler.state_storage.dir or _STATE_DIRECTORY) / name

    def state_key_path(self, config_path: Path) -> Path | None:
        """Return the file of the key that encrypts secrets in the state; None if it is not set.

        Args:
            config_path: the configuration file; a relative path is relative to its folder.
        """
        file = self.autoscaler.extensions.state_key_file if self.autoscaler is not None else None
        return None if file is None else config_path.parent / file


def short_token(token: str) -> str:
    """Return the start of a token, by which GitLab names a runner; empty if it is too short."""
    rest = _TOKEN_PREFIX.sub("", token, count=1)
    # The start of a short text would give away too much of it.
    return rest[:_SHORT_TOKEN] if len(rest) >= _TOKEN_LENGTH else ""


def _file_name(*parts: str) -> str:
    # Quoting keeps different texts different.
    name = "-".join(quote(part, safe="") for part in parts)
    if len(name) <= _IDENTITY_LENGTH:
        return name
    return f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _address(url: str) -> str:
    """Return host, port and path of a URL, without any secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}" if parts.hostname else ""


class FileConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole `config.toml`."""

    concurrent: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="The most jobs at once over all runners; by default there is no limit."),
    ] = None
    runners: Annotated[
        list[RunnerConfig], Meta(description="The runners, with or without an autoscaler.")
    ] = []
