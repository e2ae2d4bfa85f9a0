"""The configuration of the provider `local`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fleeting.types import Duration

__all__ = ("LocalConfig",)


class LocalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin_config]` of the provider `local`."""

    root: Annotated[
        Path | None,
        Meta(
            description="The folder of the instances' directories; created if missing. By default "
            "a temporary folder, which is removed when the group is closed."
        ),
    ] = None

    boot_delay: Annotated[
        Duration, Meta(description="How long an instance takes to boot; for experiments.")
    ] = Duration(0)

    max_size: Annotated[
        int, Meta(ge=1, description="The most instances that the group may have.")
    ] = 8

    shell: Annotated[
        str,
        Meta(description="The absolute path of the shell, called with `-c` and the command."),
    ] = "/bin/sh"

    fail_rate: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The probability that an instance does not boot; for experiments.",
        ),
    ] = 0.0

    persistent: Annotated[
        bool,
        Meta(
            description="Whether the instances outlive the manager and are found again in `root`."
        ),
    ] = False
