"""Checks credentials, permissions, settings and the group, without starting anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.errors import ProviderError
from fleeting.types import Finding, Severity
from fleeting_plugin_googlecloud._api import open_api
from fleeting_plugin_googlecloud._examination import (
    denied_finding,
    examine_managed_group,
    examine_settings,
)
from fleeting_plugin_googlecloud._findings import most_severe_first
from fleeting_plugin_googlecloud._instances import pushes_keys
from fleeting_plugin_googlecloud._role import minimal_permissions, role_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import GroupSettings
    from fleeting_plugin_googlecloud._config import GoogleConfig

__all__ = ("check",)


async def check(config: GoogleConfig, settings: GroupSettings) -> Sequence[Finding]:
    """Return the findings about a configuration and its group, the most severe first."""
    findings = examine_settings(config, settings)
    # With such settings every request would fail, and not for a reason of Google.
    if all(one.code != "configuration" for one in findings):
        try:
            async with open_api(config) as api:
                findings += (await examine_managed_group(api, settings)).findings
        except ProviderError as error:
            findings.append(denied_finding(error))
    findings.append(_role_finding(config, settings))
    return most_severe_first(findings)


def _role_finding(config: GoogleConfig, settings: GroupSettings) -> Finding:
    connector = settings.connector
    os = connector.os or "linux"
    static = connector.use_static_credentials or connector.password is not None
    permissions = minimal_permissions(
        regional=config.is_regional,
        keys=pushes_keys(connector, os),
        passwords=os == "windows" and not static,
        host_keys=config.host_keys == "guest-attributes",
    )
    reason = (
        "this creates the minimal role for this configuration; if the instances have a service "
        "account, the manager also needs roles/iam.serviceAccountUser for it"
    )
    return Finding(Severity.INFO, "iam-role", reason, role_command(config.project, permissions))
