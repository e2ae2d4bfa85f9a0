"""Checks credentials, permissions, settings and the group, without starting anything."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from fleeting.errors import ConfigError, ProviderError
from fleeting.types import Finding, Severity
from fleeting_plugin_aws._clients import open_clients
from fleeting_plugin_aws._errors import CredentialsExpired, Refused
from fleeting_plugin_aws._findings import by_severity
from fleeting_plugin_aws._instances import pushes_key
from fleeting_plugin_aws._policy import minimal_policy, policy_text
from fleeting_plugin_aws._preflight import examine_group, examine_settings, refusal_finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import GroupSettings
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._config import AwsConfig
    from fleeting_plugin_aws._limiter import Shared

__all__ = ("check",)


async def check(config: AwsConfig, settings: GroupSettings, shared: Shared) -> Sequence[Finding]:
    """Return the findings about a configuration and its group, the most severe first."""
    findings = examine_settings(config, settings)
    account, region, partition = "*", config.region or "*", "aws"
    # With such settings every request would fail, and not for a reason of AWS.
    is_usable = all(one.code != "configuration" for one in findings)
    try:
        async with open_clients(config, shared, "sts") as clients:
            region, partition = clients.region, clients.partition
            if is_usable:
                account, found = await _ask(clients, config, settings)
                findings += found
    except ConfigError as error:
        findings += [Finding(Severity.ERROR, "configuration", one) for one in error.problems]
    findings.append(_policy_finding(config, settings, account, region, partition))
    return by_severity(findings)


async def _ask(
    clients: Clients, config: AwsConfig, settings: GroupSettings
) -> tuple[str, list[Finding]]:
    """Return the account of the credentials, and the findings that need AWS."""
    account, identity = await _identity(clients)
    if identity.severity is Severity.ERROR:
        return account, [identity]
    clients.join_account(account)
    return account, [
        identity,
        *await _group_findings(clients, config, settings),
        *await _permissions(clients),
    ]


async def _identity(clients: Clients) -> tuple[str, Finding]:
    try:
        answer = await clients.ask("sts", "GetCallerIdentity")
    except ProviderError as error:
        command = ["aws", "sts", "get-caller-identity"]
        command += ["--profile", clients.profile] if clients.profile else []
        fix = error.command if isinstance(error, CredentialsExpired) else ""
        fix = fix or shlex.join(command)
        return "*", Finding(Severity.ERROR, "credentials", str(error), fix)
    reason = f"the credentials belong to {answer['Arn']}"
    return str(answer["Account"]), Finding(Severity.INFO, "identity", reason)


async def _group_findings(
    clients: Clients, config: AwsConfig, settings: GroupSettings
) -> list[Finding]:
    try:
        return (await examine_group(clients, config, settings, thorough=True)).findings
    except ProviderError as error:
        return [refusal_finding("group", error)]


async def _permissions(clients: Clients) -> list[Finding]:
    """Find missing permissions, where AWS supports a dry run."""
    try:
        await clients.ask("ec2", "DescribeInstances", DryRun=True)
    except ProviderError as error:
        if not (isinstance(error, Refused) and error.code == "DryRunOperation"):
            return [refusal_finding("permission", error)]
    return []


def _policy_finding(
    config: AwsConfig, settings: GroupSettings, account: str, region: str, partition: str
) -> Finding:
    connector = settings.connector
    os = connector.os or "linux"
    document = minimal_policy(
        config.name,
        region,
        account=account,
        partition=partition,
        user=(connector.username or "ec2-user") if pushes_key(connector, os) else None,
        passwords=os == "windows" and connector.password is None,
        console=config.host_keys == "console",
        queue_url=config.interruption_queue_url,
    )
    reason = "this is the minimal IAM policy for this configuration"
    return Finding(Severity.INFO, "iam-policy", reason, policy_text(document))
