"""The runners of a `config.toml`: the keys that matter for scaling, and the state file of each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from taskscaler.config.autoscaler import AutoscalerConfig

__all__ = ("FileConfig", "RunnerConfig")

_STORE = ".sqlite"
_STATE_DIRECTORY = Path(".taskscaler")
# File names may have 255 bytes, and SQLite appends to the name for its own files.
_IDENTITY_LENGTH = 150


class RunnerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[[runners]]`: the keys that matter for scaling; the token does not."""

    name: Annotated[str, Meta(description="A name for messages; may change at any time.")] = ""
    id: Annotated[int | None, Meta(description="The number of the runner at the server.")] = None
    url: Annotated[str, Meta(description="The URL of the server.")] = ""
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

    def identity(self) -> str | None:
        """Return the name of its state file, which never contains a token.

        It is `extensions.id`, else it is made from the URL and id of the runner; None if
        the runner has neither.
        """
        if self.autoscaler is not None and self.autoscaler.extensions.id is not None:
            return self.autoscaler.extensions.id
        address = _address(self.url)
        if not address or not self.id:
            return None
        # Quoting keeps different addresses different.
        name = f"{quote(address, safe='')}-{self.id}"
        if len(name) <= _IDENTITY_LENGTH:
            return name
        return f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def shown_url(self) -> str:
        """Return the URL without user and password."""
        return f"{self.url.partition('://')[0]}://{_address(self.url)}" if self.url else ""

    def state_path(self, config_path: Path) -> Path | None:
        """Return its state file; None if the state is not kept, or the runner has no identity.

        Args:
            config_path: the configuration file; a relative `dir` is relative to its folder.
        """
        identity = self.identity()
        if self.autoscaler is None or identity is None:
            return None
        storage = self.autoscaler.state_storage
        if storage.enabled is False:
            return None
        # The identity may contain dots, so this is not `with_suffix`.
        name = identity + _STORE
        return config_path.parent / (storage.dir or _STATE_DIRECTORY) / name

    def state_key_path(self, config_path: Path) -> Path | None:
        """Return the file of the key that encrypts secrets in the state; None if it is not set.

        Args:
            config_path: the configuration file; a relative path is relative to its folder.
        """
        file = self.autoscaler.extensions.state_key_file if self.autoscaler is not None else None
        return None if file is None else config_path.parent / file


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
        int, Meta(description="The most jobs at once over all runners; 0 means no limit.")
    ] = 0
    runners: Annotated[
        list[RunnerConfig], Meta(description="The runners, with or without an autoscaler.")
    ] = []
