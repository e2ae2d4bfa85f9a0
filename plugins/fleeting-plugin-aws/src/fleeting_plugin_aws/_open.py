"""Opens a group, after examining it once for problems."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fleeting.errors import ConfigError
from fleeting.types import Capability, GroupInfo, Severity
from fleeting_plugin_aws._access import Access
from fleeting_plugin_aws._clients import open_clients
from fleeting_plugin_aws._group import AwsGroup
from fleeting_plugin_aws._instances import pushes_key
from fleeting_plugin_aws._keys import load_key
from fleeting_plugin_aws._preflight import examine_group, examine_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping

    from fleeting.types import Finding, GroupSettings
    from fleeting_plugin_aws._config import AwsConfig
    from fleeting_plugin_aws._limiter import Shared

__all__ = ("account_of", "open_group")

logger = logging.getLogger("fleeting")


@asynccontextmanager
async def open_group(
    config: AwsConfig, settings: GroupSettings, shared: Shared, *, version: str
) -> AsyncGenerator[AwsGroup]:
    """Open a group; see `Provider.open`.

    Args:
        config: the plugin's configuration.
        settings: what the provider may know of the scaler.
        shared: what the groups of a provider share.
        version: of the plugin.
    """
    _refuse_errors(examine_settings(config, settings))
    async with open_clients(config, shared) as clients:
        findings, found, opened = await examine_group(clients, config, settings)
        _refuse_errors(findings)
        assert found is not None  # noqa: S101 - a missing group is an error among the findings
        for finding in findings:
            if finding.severity is Severity.WARNING:
                logger.warning("%s; to fix it: %s", finding.reason, finding.fix)
        account = account_of(found)
        clients.join_account(account)
        # Several accounts and regions can have a group of this name, driven by one manager.
        clients.where = f"aws/{account}/{clients.region}/{config.name}"
        capabilities = {Capability.SUSPEND}
        if config.interruption_queue_url is not None:
            capabilities.add(Capability.WATCH)
        info = GroupInfo(
            id=clients.where,
            max_size=int(found["MaxSize"]),
            version=version,
            capabilities=frozenset(capabilities),
        )
        connector = settings.connector
        key = load_key(connector, pushed=pushes_key(connector, connector.os or "linux"))
        access = Access(clients, config, connector, key)
        yield AwsGroup(info, config, clients, access, opened)


def account_of(group: Mapping[str, Any]) -> str:
    """Return the account that a group belongs to, which is a part of its ARN."""
    parts = str(group.get("AutoScalingGroupARN", "")).split(":")
    return parts[4] if len(parts) > 4 and parts[4] else "*"  # noqa: PLR2004 - the form of ARNs


def _refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise `ConfigError` if there are findings with which no scaler can work."""
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors:
        raise ConfigError(*(f"{one.reason}; {one.fix}" for one in errors))
