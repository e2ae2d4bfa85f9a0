"""Looks at everything that a group needs, without starting or changing anything."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fleeting.errors import ConfigError, FleetingError, PermissionDenied, ProviderError
from fleeting.types import Finding, Severity
from fleeting_plugin_aws._access import is_pushed, read_key_file
from fleeting_plugin_aws._clients import open_clients, server_time
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._findings import Facts, find_problems, missing_group
from fleeting_plugin_aws._policy import policy, policy_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from fleeting.types import ConnectorSettings, GroupSettings
    from fleeting_plugin_aws import AwsConfig
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._limiter import Shared

__all__ = ("account_of", "check", "examine_group", "examine_settings", "partition_of")

# A queue is asked to wait for a message for a second at least, and needs a while to answer.
SHORTEST_READ = timedelta(seconds=5)


async def check(config: AwsConfig, settings: GroupSettings, shared: Shared) -> Sequence[Finding]:
    """Return what there is to say about a configuration and its group, the worst first."""
    findings = examine_settings(config, settings)
    account, region, partition = "*", config.region or "*", "aws"
    # With such settings every question would fail, and not for AWS's reasons.
    is_usable = all(one.code != "configuration" for one in findings)
    try:
        async with open_clients(config, shared, "sts") as clients:
            region, partition = clients.region, partition_of(clients.region)
            if is_usable:
                account, found = await _ask(clients, config, settings, shared)
                findings += found
    except ConfigError as error:
        findings += [Finding(Severity.ERROR, "configuration", one) for one in error.problems]
    findings.append(_policy(config, settings, account, region, partition))
    order = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
    return sorted(findings, key=lambda one: order[one.severity])


async def _ask(
    clients: Clients, config: AwsConfig, settings: GroupSettings, shared: Shared
) -> tuple[str, list[Finding]]:
    """Return whose the credentials are, and what AWS tells with them."""
    account, findings = await _identity(clients)
    if findings[0].severity is Severity.ERROR:
        return account, findings
    clients.limiter = shared.limiter(
        account, clients.region, config.endpoint_url or "", config.requests_per_second
    )
    return account, [
        *findings,
        *await _group_findings(clients, config, settings),
        *await _permissions(clients),
    ]


def examine_settings(config: AwsConfig, settings: GroupSettings) -> list[Finding]:
    """Return what is wrong with what the operator wrote, as far as AWS need not be asked."""
    found: list[Finding] = []
    connector = settings.connector
    windows = connector.os == "windows"
    pushed = is_pushed(connector, connector.os or "linux")
    try:
        read_key_file(connector.key_path, pushed=pushed)
    except ConfigError as error:
        fix = "write a key without passphrase there, such as ssh-keygen -t ed25519 makes"
        found.append(Finding(Severity.ERROR, "key-path", str(error), fix))
    if windows and connector.password is None and connector.key_path is None:
        found.append(
            Finding(
                Severity.ERROR,
                "key-path",
                "connector_config.key_path: it is not set, and the passwords of Windows instances "
                "are encrypted with the key of their launch",
                "set key_path to that key, or password to a password of your own",
            )
        )
    found += [*_wrong_files(config), *_wrong_urls(config)]
    for name in ("connect_timeout", "read_timeout"):
        if getattr(config, name).total_seconds() <= 0:
            reason = f"plugin_config.{name}: {getattr(config, name)} is no time to wait"
            found.append(Finding(Severity.ERROR, "timeout", reason, 'write for instance "10s"'))
    if config.interruption_queue_url is not None and config.read_timeout < SHORTEST_READ:
        reason = (
            f"plugin_config.read_timeout: {config.read_timeout} is too short to wait for messages "
            "of the interruption queue"
        )
        found.append(Finding(Severity.ERROR, "timeout", reason, 'write at least "5s"'))
    if config.launch_patience.total_seconds() < 0:
        reason = f"plugin_config.launch_patience: {config.launch_patience} is negative"
        found.append(Finding(Severity.ERROR, "timeout", reason, 'write for instance "20s"'))
    return found


def _wrong_files(config: AwsConfig) -> list[Finding]:
    """Return the files that cannot be read: the SDK takes one that is not there for empty."""
    found: list[Finding] = []
    for name in ("config_file", "credentials_file"):
        path: Path | None = getattr(config, name)
        try:
            if path is not None:
                path.expanduser().open("rb").close()
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            reason = f"plugin_config.{name}: {path} cannot be read ({why})"
            fix = "write where that file of the SDK is, or leave the key out"
            found.append(Finding(Severity.ERROR, "configuration", reason, fix))
    return found


def _wrong_urls(config: AwsConfig) -> list[Finding]:
    return [
        Finding(
            Severity.ERROR,
            "configuration",
            f"plugin_config.{name}: it is no URL that begins with https:// or http://",
            f'write for instance "{example}"',
        )
        for name, example in (
            ("endpoint_url", "https://autoscaling.example.com"),
            ("interruption_queue_url", "https://sqs.eu-central-1.amazonaws.com/123456789012/name"),
        )
        if not (getattr(config, name) or "https://").startswith(("https://", "http://"))
    ]


async def examine_group(
    clients: Clients, config: AwsConfig, settings: GroupSettings
) -> tuple[list[Finding], Any, datetime]:
    """Return the findings about a group, what AWS says of it, and when that was by its clock.

    Raises:
        ProviderError: AWS does not tell.
    """
    answer = await clients.ask(
        "autoscaling", "DescribeAutoScalingGroups", AutoScalingGroupNames=[config.name]
    )
    group = next(iter(answer.get("AutoScalingGroups", ())), None)
    if group is None:
        return [missing_group(config.name, clients.region)], None, server_time(answer)
    refreshes: Sequence[Any] = ()
    found: list[Finding] = []
    try:
        told = await clients.ask(
            "autoscaling",
            "DescribeInstanceRefreshes",
            AutoScalingGroupName=config.name,
            MaxRecords=1,
        )
        refreshes = told.get("InstanceRefreshes", ())
    except ProviderError as error:
        reason = f"whether an instance refresh is under way is not known: {error}"
        found.append(Finding(Severity.INFO, "instance-refresh-unknown", reason))
    if config.interruption_queue_url is not None:
        found += await _examine_queue(clients, config.interruption_queue_url)
    facts = Facts(group, refreshes, clients.region, settings.maximum)
    return [*find_problems(facts), *found], group, server_time(answer)


async def _examine_queue(clients: Clients, url: str) -> list[Finding]:
    """Find out whether the queue is there, and may be read.

    Raises:
        ProviderError: AWS does not tell now.
    """
    try:
        await clients.ask(
            "sqs",
            "GetQueueAttributes",
            QueueUrl=url,
            AttributeNames=["ApproximateNumberOfMessages"],
        )
    except ProviderError as error:
        if error.retryable:
            raise
        return [_refused("interruption-queue", error)]
    return []


def account_of(group: Any) -> str:
    """Return the account that a group belongs to, which its name in full tells."""
    parts = str(group.get("AutoScalingGroupARN", "")).split(":")
    return parts[4] if len(parts) > 4 and parts[4] else "*"  # noqa: PLR2004 - as ARNs are made


def partition_of(region: str) -> str:
    """Return the part of AWS that a region belongs to, as resource names have it."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


async def _identity(clients: Clients) -> tuple[str, list[Finding]]:
    try:
        answer = await clients.ask("sts", "GetCallerIdentity")
    except FleetingError as error:
        fix = "aws sts get-caller-identity"
        return "*", [Finding(Severity.ERROR, "credentials", str(error), fix)]
    reason = f"the credentials are those of {answer['Arn']}"
    return str(answer["Account"]), [Finding(Severity.INFO, "identity", reason)]


async def _group_findings(
    clients: Clients, config: AwsConfig, settings: GroupSettings
) -> list[Finding]:
    try:
        findings, _, _ = await examine_group(clients, config, settings)
    except ProviderError as error:
        return [_refused("group", error)]
    return findings


async def _permissions(clients: Clients) -> list[Finding]:
    """Find out what is not allowed, where AWS lets one ask without doing it."""
    found: list[Finding] = []
    try:
        await clients.ask("ec2", "DescribeInstances", DryRun=True)
    except ProviderError as error:
        if not (isinstance(error, Refused) and error.code == "DryRunOperation"):
            found.append(_refused("permission", error))
    return found


def _refused(code: str, error: ProviderError) -> Finding:
    fix = "mend what that names, in plugin_config or in AWS, and check again"
    if isinstance(error, PermissionDenied):
        fix = "allow it by a policy like that of the finding iam-policy"
    return Finding(Severity.ERROR, code, str(error), fix)


def _policy(
    config: AwsConfig, settings: GroupSettings, account: str, region: str, partition: str
) -> Finding:
    document = policy(
        config.name,
        region,
        account=account,
        partition=partition,
        user=_pushed_user(settings.connector),
        passwords=settings.connector.os == "windows" and settings.connector.password is None,
        console=config.host_keys == "console",
        queue_url=config.interruption_queue_url,
    )
    reason = "this is the least IAM policy with which everything that is configured works"
    return Finding(Severity.INFO, "iam-policy", reason, policy_text(document))


def _pushed_user(connector: ConnectorSettings) -> str | None:
    if not is_pushed(connector, connector.os or "linux"):
        return None
    return connector.username or "ec2-user"
