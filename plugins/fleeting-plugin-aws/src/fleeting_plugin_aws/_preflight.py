"""Examines settings and the group before it is used; opening and checking both do this.

Nothing here starts or changes anything.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting import open_regular
from fleeting.errors import ConfigError, PermissionDenied, ProviderError
from fleeting.types import Finding, Severity
from fleeting_plugin_aws._errors import CredentialsExpired, WrongSignature
from fleeting_plugin_aws._findings import (
    GroupFacts,
    find_problems,
    missing_group,
    occupied_group,
)
from fleeting_plugin_aws._instances import pushes_key
from fleeting_plugin_aws._keys import load_key
from fleeting_plugin_aws._requests import find_group

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from fleeting.types import ConnectorSettings, GroupSettings
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._config import AwsConfig

__all__ = ("GroupExamination", "examine_group", "examine_settings", "refusal_finding")

# A request to a queue waits at least a second for a message, and the answer takes a while.
SHORTEST_READ = timedelta(seconds=5)


class GroupExamination(NamedTuple):
    """The result of `examine_group`.

    Attributes:
        findings: about the group and its queue.
        group: AWS's description; None if the group does not exist.
        at: when AWS described it, by AWS's clock.
    """

    findings: list[Finding]
    group: Mapping[str, Any] | None
    at: datetime


def examine_settings(config: AwsConfig, settings: GroupSettings) -> list[Finding]:
    """Return the problems of a configuration that show without asking AWS."""
    return [
        *_key_findings(settings.connector),
        *_file_findings(config),
        *_url_findings(config),
        *_role_findings(config),
        *_time_findings(config),
    ]


def _key_findings(connector: ConnectorSettings) -> list[Finding]:
    found: list[Finding] = []
    os = connector.os or "linux"
    try:
        load_key(connector, pushed=pushes_key(connector, os))
    except ConfigError as error:
        fix = (
            "write a private key without a passphrase there, for example with ssh-keygen -t ed25519"
        )
        found.append(_error("key-path", str(error), fix))
    if os == "windows" and connector.password is None and connector.key_path is None:
        found.append(
            _error(
                "key-path",
                "connector_config.key_path: not set, but the passwords of Windows instances "
                "are encrypted with the key of their launch",
                "set key_path to that key, or set password",
            )
        )
    return found


def _file_findings(config: AwsConfig) -> list[Finding]:
    """Return the files that cannot be read. The SDK would treat a missing file as empty."""
    found: list[Finding] = []
    for name in ("config_file", "credentials_file"):
        path: Path | None = getattr(config, name)
        try:
            if path is not None:
                os.close(open_regular(path.expanduser()))
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            reason = f"plugin_config.{name}: {path} cannot be read ({why})"
            fix = f"set {name} to the path of that file of the SDK, or remove the key"
            found.append(_error("configuration", reason, fix))
    return found


def _url_findings(config: AwsConfig) -> list[Finding]:
    return [
        _error(
            "configuration",
            f"plugin_config.{name}: a URL must begin with https:// or http://",
            f'set it, for example to "{example}"',
        )
        for name, example in (
            ("endpoint_url", "https://autoscaling.example.com"),
            ("interruption_queue_url", "https://sqs.eu-central-1.amazonaws.com/123456789012/name"),
        )
        if not (getattr(config, name) or "https://").startswith(("https://", "http://"))
    ]


def _role_findings(config: AwsConfig) -> list[Finding]:
    if config.external_id is None or config.assume_role_arn is not None:
        return []
    reason = "plugin_config.external_id: set without assume_role_arn, for which it is meant"
    fix = "set assume_role_arn, or write external_id into the profile that names the role"
    return [_error("configuration", reason, fix)]


def _time_findings(config: AwsConfig) -> list[Finding]:
    found: list[Finding] = []
    for name in ("connect_timeout", "read_timeout"):
        if getattr(config, name).total_seconds() <= 0:
            reason = f"plugin_config.{name}: must be more than zero, got {getattr(config, name)}"
            found.append(_error("timeout", reason, 'set it, for example to "10s"'))
    if config.interruption_queue_url is not None and config.read_timeout < SHORTEST_READ:
        reason = (
            f"plugin_config.read_timeout: {config.read_timeout} is too short to wait for messages "
            "of the interruption queue"
        )
        found.append(_error("timeout", reason, 'set it to at least "5s"'))
    if config.launch_patience.total_seconds() < 0:
        reason = (
            f"plugin_config.launch_patience: must not be negative, got {config.launch_patience}"
        )
        found.append(_error("timeout", reason, 'set it, for example to "20s"'))
    return found


def _error(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, reason, fix)


async def examine_group(
    clients: Clients, config: AwsConfig, settings: GroupSettings, *, thorough: bool = False
) -> GroupExamination:
    """Describe the group and find its problems.

    Args:
        clients: send the requests.
        config: the plugin's configuration.
        settings: what the provider may know of the scaler.
        thorough: whether to look for everything that works on the group from outside, which
            takes a request for each kind, and for instances that leave no room. Opening a group
            does without.

    Raises:
        ProviderError: a request failed.
    """
    group, at = await find_group(clients, config.name)
    if group is None:
        return GroupExamination([missing_group(config.name, clients.region)], None, at)
    found: list[Finding] = []
    known: dict[str, list[Any]] = {}
    for one in _INFLUENCES if thorough else _INFLUENCES[:1]:
        try:
            known[one.fact] = await _list(clients, one, config.name)
        except ProviderError as error:
            reason = f"cannot find out whether group {config.name} has {one.what}: {error}"
            found.append(Finding(Severity.INFO, f"{one.code}-unknown", reason))
    if config.interruption_queue_url is not None:
        found += await _examine_queue(clients, config.interruption_queue_url)
    facts = GroupFacts(
        group,
        known.get("refreshes", ()),
        clients.region,
        settings.maximum,
        known.get("hooks", ()),
        known.get("policies", ()),
        known.get("actions", ()),
    )
    if thorough:
        found += occupied_group(facts)
    return GroupExamination([*find_problems(facts), *found], group, at)


class _Influence(NamedTuple):
    """A kind of thing that works on a group from outside.

    Attributes:
        fact: its name in `GroupFacts`.
        operation: the request that lists those of a group.
        key: of the list in the answer.
        code: of the findings about it.
        what: it in words.
        newest: whether only the newest one matters.
    """

    fact: str
    operation: str
    key: str
    code: str
    what: str
    newest: bool = False


_INFLUENCES = (
    _Influence(
        "refreshes",
        "DescribeInstanceRefreshes",
        "InstanceRefreshes",
        "instance-refresh",
        "an instance refresh under way",
        newest=True,
    ),
    _Influence(
        "hooks", "DescribeLifecycleHooks", "LifecycleHooks", "lifecycle-hook", "lifecycle hooks"
    ),
    _Influence(
        "policies", "DescribePolicies", "ScalingPolicies", "scaling-policy", "scaling policies"
    ),
    _Influence(
        "actions",
        "DescribeScheduledActions",
        "ScheduledUpdateGroupActions",
        "scheduled-action",
        "scheduled actions",
    ),
)


async def _list(clients: Clients, one: _Influence, group: str) -> list[Any]:
    """Return what AWS lists for a group.

    Raises:
        ProviderError: a request failed.
    """
    found: list[Any] = []
    page: dict[str, Any] = {"MaxRecords": 1} if one.newest else {}
    while True:
        answer = await clients.ask("autoscaling", one.operation, AutoScalingGroupName=group, **page)
        found += answer.get(one.key, ())
        if one.newest or not answer.get("NextToken"):
            return found
        page = {"NextToken": answer["NextToken"]}


async def _examine_queue(clients: Clients, url: str) -> list[Finding]:
    """Find out whether the queue exists and may be read.

    Raises:
        ProviderError: the request failed for a passing reason.
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
        return [refusal_finding("interruption-queue", error)]
    return []


def refusal_finding(code: str, error: ProviderError) -> Finding:
    """Return the finding for a request that AWS refused."""
    fix = "correct what the message names, in plugin_config or in AWS, and check again"
    if isinstance(error, CredentialsExpired | WrongSignature):
        fix = "do what the message says, and check again"
    elif isinstance(error, PermissionDenied):
        fix = "allow it with a policy like that of the finding iam-policy"
    return _error(code, str(error), fix)
