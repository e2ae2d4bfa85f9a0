"""The keys of `[plugin_config]`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fleeting.types import Duration

__all__ = ("GoogleConfig", "is_region", "is_zone")

_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_ZONE = re.compile(rf"{_REGION.pattern}-[a-z]+[0-9]*[a-z]*")


class GoogleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin_config]` of the provider `googlecloud`."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$",
            description="The name of the managed instance group.",
        ),
    ]
    project: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$",
            description="The id of the project.",
        ),
    ]
    zone: Annotated[str | None, Meta(description="The zone of a zonal group.")] = None
    region: Annotated[str | None, Meta(description="The region of a regional group.")] = None
    credentials_file: Annotated[
        Path | None,
        Meta(
            description="A file with credentials; by default the SDK's usual places are searched."
        ),
    ] = None
    endpoint: Annotated[
        str | None,
        Meta(description="Send all requests here instead: a private endpoint or an emulator."),
    ] = None
    host_keys: Annotated[
        Literal["first-use", "guest-attributes"],
        Meta(
            description="How to verify SSH host keys: `first-use` trusts the first key that is "
            "seen, `guest-attributes` reads the keys that the guest agent publishes."
        ),
    ] = "first-use"
    key_lifetime: Annotated[
        Duration, Meta(description="How long a key that was pushed to an instance is valid.")
    ] = Duration(hours=12)
    request_timeout: Annotated[
        Duration,
        Meta(description="How long a request may take in all, renewing the credentials included."),
    ] = Duration(seconds=30)

    @property
    def place(self) -> str:
        """Return the zone or region of the group."""
        return self.zone or self.region or ""

    @property
    def is_regional(self) -> bool:
        """Return whether the group is a regional one."""
        return self.zone is None


def is_zone(text: str) -> bool:
    """Return whether a text has the form of the name of a zone."""
    return _ZONE.fullmatch(text) is not None


def is_region(text: str) -> bool:
    """Return whether a text has the form of the name of a region."""
    return _REGION.fullmatch(text) is not None
