"""Opens a group, after examining it once for problems."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fleeting.errors import ConfigError
from fleeting.types import Capability, GroupInfo, Severity
from fleeting_plugin_googlecloud._access import GoogleAccess, load_login_key
from fleeting_plugin_googlecloud._api import open_api
from fleeting_plugin_googlecloud._examination import examine_managed_group, examine_settings
from fleeting_plugin_googlecloud._findings import announces_interruptions, project_uses_os_login
from fleeting_plugin_googlecloud._group import GoogleGroup
from fleeting_plugin_googlecloud._members import read_managed_group

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from fleeting.types import Finding, GroupSettings
    from fleeting_plugin_googlecloud._config import GoogleConfig

__all__ = ("open_group",)

logger = logging.getLogger("fleeting")


@asynccontextmanager
async def open_group(
    config: GoogleConfig, settings: GroupSettings, *, version: str
) -> AsyncGenerator[GoogleGroup]:
    """Open a group; see `Provider.open`.

    Args:
        config: the plugin's configuration.
        settings: what the provider may know of the scaler.
        version: of the plugin.
    """
    _refuse_errors(examine_settings(config, settings))
    async with open_api(config) as api:
        examination = await examine_managed_group(api, settings)
        _refuse_errors(examination.findings)
        for finding in examination.findings:
            if finding.severity is Severity.WARNING:
                logger.warning("%s; to fix it: %s", finding.reason, finding.fix)
        facts = examination.facts
        assert facts is not None  # noqa: S101 - a missing group is an error among the findings
        capabilities = {Capability.SUSPEND}
        if announces_interruptions(facts):
            capabilities.add(Capability.WATCH)
        info = GroupInfo(id=api.where, version=version, capabilities=frozenset(capabilities))
        key = load_login_key(settings.connector)
        access = GoogleAccess(api, settings.connector, key, os_login=project_uses_os_login(facts))
        group = read_managed_group(facts.group)
        yield GoogleGroup(info, api, access, group, examination.members)


def _refuse_errors(findings: Iterable[Finding]) -> None:
    """Raise `ConfigError` if there are findings with which no scaler can work."""
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors:
        raise ConfigError(*(f"{one.reason}; {one.fix}" for one in errors))
