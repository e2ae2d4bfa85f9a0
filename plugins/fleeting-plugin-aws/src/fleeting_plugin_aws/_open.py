"""Opens a group: looks once at everything that would hurt later, and then trusts it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fleeting.errors import ConfigError
from fleeting.types import Capability, GroupInfo, Severity
from fleeting_plugin_aws import __version__
from fleeting_plugin_aws._access import Access, is_pushed, read_key_file
from fleeting_plugin_aws._check import account_of, examine_group, examine_settings
from fleeting_plugin_aws._clients import open_clients
from fleeting_plugin_aws._group import AwsGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from fleeting.types import Finding, GroupSettings
    from fleeting_plugin_aws import AwsConfig
    from fleeting_plugin_aws._limiter import Shared

__all__ = ("open_group",)

logger = logging.getLogger("fleeting")


@asynccontextmanager
async def open_group(
    config: AwsConfig, settings: GroupSettings, shared: Shared
) -> AsyncGenerator[AwsGroup]:
    """Return a context manager in which the group is open; see `Provider.open`."""
    _stop_for_errors(examine_settings(config, settings))
    async with open_clients(config, shared) as clients:
        findings, found, opened = await examine_group(clients, config, settings)
        _stop_for_errors(findings)
        for finding in findings:
            if finding.severity is Severity.WARNING:
                logger.warning("%s; to mend it: %s", finding.reason, finding.fix)
        clients.limiter = shared.limiter(
            account_of(found),
            clients.region,
            config.endpoint_url or "",
            config.requests_per_second,
        )
        capabilities = {Capability.SUSPEND}
        if config.interruption_queue_url is not None:
            capabilities.add(Capability.WATCH)
        # The same name can be in each account and region; one manager may drive several of them.
        clients.where = f"aws/{account_of(found)}/{clients.region}/{config.name}"
        info = GroupInfo(
            id=clients.where,
            max_size=int(found["MaxSize"]),
            version=__version__,
            capabilities=frozenset(capabilities),
        )
        connector = settings.connector
        pushed = is_pushed(connector, connector.os or "linux")
        key = read_key_file(connector.key_path, pushed=pushed)
        yield AwsGroup(
            info,
            config,
            clients,
            opened,
            lambda members: Access(clients, config, connector, key, members),
        )


def _stop_for_errors(findings: Iterable[Finding]) -> None:
    """Refuse what no scaler could live with.

    Raises:
        ConfigError: there is such a finding.
    """
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors:
        raise ConfigError(*(f"{one.reason}; {one.fix}" for one in errors))
