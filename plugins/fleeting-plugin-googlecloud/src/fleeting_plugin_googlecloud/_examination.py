"""Examines settings and the group before it is used; opening and checking both do this.

Nothing here starts or changes anything. Whether a permission is there shows in a request about
something that does not exist: with it Google answers 404, and without it 403.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.errors import ConfigError, GroupGone, PermissionDenied, ProviderError
from fleeting.types import Finding, Severity
from fleeting_plugin_googlecloud._access import load_login_key
from fleeting_plugin_googlecloud._config import is_region, is_zone
from fleeting_plugin_googlecloud._errors import CredentialsUnusable, Missing
from fleeting_plugin_googlecloud._findings import (
    ManagedGroupFacts,
    find_managed_problems,
    missing_managed_group,
    most_severe_first,
)
from fleeting_plugin_googlecloud._instances import pushes_keys
from fleeting_plugin_googlecloud._names import instance_names, request_id
from fleeting_plugin_googlecloud._requests import (
    describe_managed_group,
    gather,
    list_members,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from fleeting.types import GroupSettings
    from fleeting_plugin_googlecloud._api import GoogleApi
    from fleeting_plugin_googlecloud._config import GoogleConfig
    from fleeting_plugin_googlecloud._members import ManagedMember

__all__ = ("ManagedExamination", "denied_finding", "examine_managed_group", "examine_settings")

# A name that no operation and no instance has.
ABSENT = "no-such-operation"
# The metadata have a user and a key in one line, with a colon between them.
_USER = re.compile(r"[^\s:]{1,64}")


class ManagedExamination(NamedTuple):
    """The result of `examine_managed_group`.

    Attributes:
        findings: about the group and the permissions.
        facts: what Google says about the group; None if it does not exist.
        members: of the group, by name.
    """

    findings: list[Finding]
    facts: ManagedGroupFacts | None
    members: dict[str, ManagedMember]


def examine_settings(config: GoogleConfig, settings: GroupSettings) -> list[Finding]:
    """Return the problems of a configuration that show without asking Google."""
    found = [*_place_findings(config), *_file_findings(config)]
    if not (config.endpoint or "https://").startswith(("https://", "http://")):
        reason = "plugin_config.endpoint: a URL must begin with https:// or http://"
        fix = 'set it, for example to "https://compute-xyz.p.googleapis.com"'
        found.append(_error("configuration", reason, fix))
    for name, least in (("key_lifetime", 60.0), ("request_timeout", 1.0)):
        if getattr(config, name).total_seconds() < least:
            reason = (
                f"plugin_config.{name}: must be at least {least:g}s, got {getattr(config, name)}"
            )
            found.append(_error("timeout", reason, 'set it, for example to "12h" or "30s"'))
    connector = settings.connector
    names = {"username": (connector.username or "fleeting",), "slot_users": connector.slot_users}
    found += [
        _error(
            "configuration",
            f"connector_config.{key}: {user!r} is not a name that a user can have",
            'set it, for example to "fleeting"',
        )
        for key, users in names.items()
        for user in users
        if not _USER.fullmatch(user)
    ]
    try:
        load_login_key(settings.connector)
    except ConfigError as error:
        fix = (
            "write a private key without a passphrase there, for example with ssh-keygen -t ed25519"
        )
        found.append(_error("key-path", str(error), fix))
    return found


def _place_findings(config: GoogleConfig) -> list[Finding]:
    zone, region = config.zone, config.region
    if (zone is None) == (region is None):
        return [
            _error(
                "configuration",
                "plugin_config: set either zone, for a zonal group, or region, for a regional one",
                'set it, for example zone = "europe-west1-b" or region = "europe-west1"',
            )
        ]
    if zone is not None and not is_zone(zone):
        if is_region(zone):
            reason = f"plugin_config.zone: {zone} is a region"
            fix = f'write region = "{zone}" for a regional group, or zone = "{zone}-b"'
        else:
            reason = f"plugin_config.zone: {zone!r} is not the name of a zone"
            fix = 'set it, for example to "europe-west1-b"'
        return [_error("configuration", reason, fix)]
    if region is not None and not is_region(region):
        if is_zone(region):
            reason = f"plugin_config.region: {region} is a zone"
            fix = f'write zone = "{region}" for a zonal group'
        else:
            reason = f"plugin_config.region: {region!r} is not the name of a region"
            fix = 'set it, for example to "europe-west1"'
        return [_error("configuration", reason, fix)]
    return []


def _file_findings(config: GoogleConfig) -> list[Finding]:
    path: Path | None = config.credentials_file
    try:
        if path is not None:
            path.expanduser().open("rb").close()
    except (OSError, RuntimeError) as error:
        why = (getattr(error, "strerror", None) or type(error).__name__).lower()
        reason = f"plugin_config.credentials_file: {path} cannot be read ({why})"
        fix = "set it to a file with credentials of a service account, or remove the key"
        return [_error("configuration", reason, fix)]
    return []


async def examine_managed_group(api: GoogleApi, settings: GroupSettings) -> ManagedExamination:
    """Describe the group and find its problems.

    Raises:
        ProviderError: a request failed.
    """
    try:
        group = await describe_managed_group(api)
    except GroupGone:
        return ManagedExamination([missing_managed_group(api.config)], None, {})
    answers: list[Any] = await gather(
        lambda: list_members(api),
        lambda: _template(api, group),
        lambda: _optional(api, "projects", "get"),
        lambda: _probe(api, settings, group),
    )
    members, template, project, found = answers
    for what, answer in (("instance template", template), ("project", project)):
        if isinstance(answer, ProviderError):
            reason = f"cannot examine the {what} of the group: {answer}"
            found.append(Finding(Severity.INFO, "not-examined", reason))
    refused = isinstance(template, ProviderError), isinstance(project, ProviderError)
    facts = ManagedGroupFacts(
        api.config,
        settings.connector,
        group,
        {} if refused[0] else template.get("properties", {}),
        {} if refused[1] else project,
        complete=not any(refused),
    )
    findings = most_severe_first([*found, *find_managed_problems(facts)])
    return ManagedExamination(findings, facts, members)


async def _template(api: GoogleApi, group: Mapping[str, Any]) -> dict[str, Any] | ProviderError:
    """Describe the instance template of a group."""
    urls = [group, *group.get("versions", ())]
    url = next((str(one["instanceTemplate"]) for one in urls if one.get("instanceTemplate")), "")
    parts = url.split("/")
    if len(parts) < 3 or parts[-2] != "instanceTemplates":  # noqa: PLR2004 - the form of URLs
        return {}
    if "regions" in parts:
        region = parts[parts.index("regions") + 1]
        return await _optional(
            api, "region_templates", "get", region=region, instance_template=parts[-1]
        )
    return await _optional(api, "templates", "get", instance_template=parts[-1])


async def _optional(
    api: GoogleApi, service: str, method: str, **fields: Any
) -> dict[str, Any] | ProviderError:
    """Send a request whose answer is not indispensable; return the error if it is refused.

    Raises:
        ProviderError: it failed for a passing reason.
    """
    try:
        return await api.read(service, method, **fields)
    except ProviderError as error:
        if error.retryable:
            raise
        return error


async def _probe(
    api: GoogleApi, settings: GroupSettings, group: Mapping[str, Any]
) -> list[Finding]:
    """Return the permissions that are missing.

    Raises:
        ProviderError: a request failed for a passing reason.
    """
    zone = _some_zone(api.config, group)
    # Like the group's own instances, because a condition of a role may require that.
    base = str(group.get("baseInstanceName") or api.config.name)
    (nothing,) = instance_names(base, request_id("probe", api.where), 1)
    scope = "region" if api.config.is_regional else "zone"
    questions = [
        partial(api.read, "instances", "get", zone=zone, instance=nothing),
        partial(
            api.read,
            f"{scope}_operations",
            "get",
            operation=ABSENT,
            **{scope: api.config.place},
        ),
    ]
    connector = settings.connector
    if pushes_keys(connector, connector.os or "linux"):
        # Without the right fingerprint, Google would refuse this even if the instance existed.
        write = partial(api.change, "instances", "set_metadata", zone=zone, instance=nothing)
        questions.append(partial(write, metadata_resource={"items": []}))
        if api.config.is_regional:
            questions.append(
                partial(api.read, "zone_operations", "get", operation=ABSENT, zone=zone)
            )
    answers = await gather(*(partial(_refused, question) for question in questions))
    return [denied_finding(error) for error in answers if error is not None]


async def _refused(question: Callable[[], Awaitable[object]]) -> ProviderError | None:
    """Ask about something that does not exist; return why Google refused that, if it did.

    Raises:
        ProviderError: the request failed for a passing reason.
    """
    try:
        await question()
    except Missing:
        return None
    except ProviderError as error:
        if error.retryable and not isinstance(error, CredentialsUnusable):
            raise
        return error
    return None


def _some_zone(config: GoogleConfig, group: Mapping[str, Any]) -> str:
    """Return a zone of the group."""
    if config.zone is not None:
        return config.zone
    zones = group.get("distributionPolicy", {}).get("zones", ())
    url = next((str(one.get("zone", "")) for one in zones), "")
    return url.rpartition("/")[2] or f"{config.place}-b"


def denied_finding(error: ProviderError) -> Finding:
    """Return the finding for a request that Google refused."""
    fix = "correct what the message names, in plugin_config or at Google, and check again"
    if isinstance(error, CredentialsUnusable):
        fix = "do what the message says, and check again"
    elif isinstance(error, PermissionDenied):
        fix = "allow it with a role like that of the finding iam-role"
    return _error("permission", str(error), fix)


def _error(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, reason, fix)
