"""The built-in provider `local`: instances that are SSH servers on this computer.

For trying things out, for tests, and for jobs that fit on one machine: it needs
no cloud, no root and no sshd. An instance has an own port on 127.0.0.1, own
keys, an own home directory, and takes everything that it started with it when
it goes. It is no sandbox: commands run as the user who started the manager,
and can read and write what that user can.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from msgspec import Meta
from typing_extensions import override

from fleeting.abc import InstanceGroup, Provider
from fleeting.errors import ConfigError
from fleeting.plugin import hookimpl
from fleeting.types import Duration, Severity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("LocalConfig", "LocalProvider", "fleeting_provider")


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


class LocalProvider(Provider):
    """Opens groups of instances on this computer."""

    name: ClassVar[str] = "local"
    config_type: ClassVar[type[LocalConfig]] = LocalConfig

    @override
    @asynccontextmanager
    async def open(
        self, config: LocalConfig, settings: GroupSettings
    ) -> AsyncGenerator[InstanceGroup]:
        from fleeting.local._check import find_problems

        findings = find_problems(config)
        errors = [one for one in findings if one.severity is Severity.ERROR]
        if errors:
            raise ConfigError(*(f"{one.reason}; {one.fix}" for one in errors))
        # Imported late: it does not exist on Windows, which the findings say.
        from fleeting.local._group import open_group

        async with open_group(config) as group:
            yield group

    @override
    async def check(self, config: LocalConfig, settings: GroupSettings) -> Sequence[Finding]:
        from fleeting.local._check import find_problems

        return find_problems(config)


@hookimpl
def fleeting_provider() -> Provider:
    """Return the provider `local`."""
    return LocalProvider()
