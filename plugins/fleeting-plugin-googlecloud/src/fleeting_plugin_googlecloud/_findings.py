"""Finds settings of a group that would cause problems later.

Each rule is a function from Google's descriptions to at most one finding, with the
exact command that fixes it. An `ERROR` is a setting with which no scaler can work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.types import Finding, Severity
from fleeting_plugin_googlecloud._commands import (
    gcloud,
    group_command,
    place_arguments,
    update_command,
)
from fleeting_plugin_googlecloud._instances import USER, is_true, metadata_of, pushes_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fleeting.types import ConnectorSettings
    from fleeting_plugin_googlecloud._config import GoogleConfig

__all__ = (
    "ManagedGroupFacts",
    "announces_interruptions",
    "find_managed_problems",
    "missing_managed_group",
    "most_severe_first",
    "project_uses_os_login",
)

_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}

# A listing without pages of a larger group is an answer of more than a megabyte.
MANY_MEMBERS = 1000


class ManagedGroupFacts(NamedTuple):
    """The input of the rules.

    Attributes:
        config: the plugin's configuration.
        connector: the operator's settings for connecting.
        group: the group, as described by `instanceGroupManagers.get`.
        template: the properties of its instance template; empty if they could not be read.
        project: the project, as described by `projects.get`; empty if it could not be read.
        complete: whether both could be read.
    """

    config: GoogleConfig
    connector: ConnectorSettings
    group: Mapping[str, Any]
    template: Mapping[str, Any]
    project: Mapping[str, Any]
    complete: bool = True

    @property
    def name(self) -> str:
        """Return the group's name."""
        return self.config.name

    @property
    def scheduling(self) -> Mapping[str, Any]:
        """Return when and how Google may end the instances, as the template says."""
        found: Mapping[str, Any] = self.template.get("scheduling", {})
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """Return the metadata that the group gives to its instances."""
        everywhere = self.group.get("allInstancesConfig", {}).get("properties", {})
        changed: dict[str, str] = {
            str(key): str(value) for key, value in everywhere.get("metadata", {}).items()
        }
        return metadata_of(self.template) | changed

    def update(self, *arguments: str) -> str:
        """Return the command that changes the group's settings."""
        return update_command(self.config, *arguments)

    def set_metadata(self, assignment: str) -> str:
        """Return the command that changes the metadata of all new instances."""
        words = ["compute", "instance-groups", "managed", "all-instances-config", "update"]
        place = place_arguments(self.config)
        return gcloud(*words, self.name, *place, f"--metadata={assignment}")


def most_severe_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the most severe first, and otherwise in their order."""
    return sorted(findings, key=lambda one: _ORDER[one.severity])


def find_managed_problems(facts: ManagedGroupFacts) -> list[Finding]:
    """Return the problems of a group, the most severe first."""
    return most_severe_first(f for rule in _RULES if (f := rule(facts)) is not None)


def missing_managed_group(config: GoogleConfig) -> Finding:
    """Return the finding for a group that does not exist."""
    kind = "region" if config.is_regional else "zone"
    return _error(
        "group-missing",
        f"there is no managed instance group {config.name} in {kind} {config.place} of project "
        f"{config.project}; set name, project and {kind} in plugin_config",
        gcloud("compute", "instance-groups", "managed", "list", f"--project={config.project}"),
    )


def project_uses_os_login(facts: ManagedGroupFacts) -> bool:
    """Return whether instances use OS Login unless their own metadata say otherwise."""
    return is_true(metadata_of(facts.project, "commonInstanceMetadata").get("enable-oslogin"))


def announces_interruptions(facts: ManagedGroupFacts) -> bool:
    """Return whether Google may end instances at a time that shows in the listing before."""
    scheduling = facts.scheduling
    return (
        is_spot(scheduling)
        or bool(scheduling.get("maxRunDuration"))
        or bool(scheduling.get("terminationTime"))
        or bool(scheduling.get("gracefulShutdown", {}).get("enabled"))
    )


def is_spot(scheduling: Mapping[str, Any]) -> bool:
    """Return whether Google may interrupt the instances."""
    return scheduling.get("provisioningModel") == "SPOT" or bool(scheduling.get("preemptible"))


def _error(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, reason, fix)


def _warning(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.WARNING, code, reason, fix)


def _autoscaler(facts: ManagedGroupFacts) -> Finding | None:
    autoscaler = str(facts.group.get("status", {}).get("autoscaler", ""))
    if not autoscaler:
        return None
    return _error(
        "autoscaler",
        f"group {facts.name} has the autoscaler {autoscaler.rpartition('/')[2]}, which would undo "
        "every change and end instances with running jobs",
        group_command(facts.config, "stop-autoscaling"),
    )


def _stateful(facts: ManagedGroupFacts) -> Finding | None:
    if not facts.group.get("statefulPolicy", {}).get("preservedState"):
        return None
    return _error(
        "stateful-policy",
        f"group {facts.name} is stateful, so an instance would get the disks and addresses of an "
        "earlier one; create a group without a stateful policy, and set name to it",
        group_command(facts.config, "describe"),
    )


def _redistribution(facts: ManagedGroupFacts) -> Finding | None:
    kind = facts.group.get("updatePolicy", {}).get("instanceRedistributionType") or "PROACTIVE"
    if not facts.config.is_regional or kind == "NONE":
        return None
    return _error(
        "redistribution",
        f"group {facts.name} moves instances between zones by itself (instance redistribution), so "
        "Google ends instances with running jobs, and refuses to create instances by name",
        facts.update("--instance-redistribution-type=none"),
    )


def _bulk(facts: ManagedGroupFacts) -> Finding | None:
    if facts.group.get("targetSizePolicy", {}).get("mode") != "BULK":
        return None
    return _error(
        "target-size-policy",
        f"group {facts.name} creates all its instances at once or none (target size policy BULK), "
        "so single instances cannot be added",
        facts.update("--target-size-policy-mode=individual"),
    )


def _os_login(facts: ManagedGroupFacts) -> Finding | None:
    os = facts.connector.os or "linux"
    own = facts.metadata.get("enable-oslogin")
    used = is_true(own) if own is not None else project_uses_os_login(facts)
    if not used or not pushes_keys(facts.connector, os):
        return None
    where = "its instance template" if own is not None else "the project"
    return _error(
        "os-login",
        f"instances of group {facts.name} use OS Login (enable-oslogin in the metadata of "
        f"{where}), so they ignore the keys that this plugin writes; switch it off for the group, "
        "or configure use_static_credentials and key_path with a key of an OS Login user",
        facts.set_metadata("enable-oslogin=FALSE"),
    )


def _repair(facts: ManagedGroupFacts) -> Finding | None:
    policy = facts.group.get("instanceLifecyclePolicy", {})
    if policy.get("defaultActionOnFailure", "REPAIR") == "DO_NOTHING":
        return None
    return _warning(
        "repair",
        f"group {facts.name} recreates instances that fail or are interrupted, under the same "
        "name, also when nothing needs them",
        facts.update("--default-action-on-vm-failure=do-nothing"),
    )


def _autohealing(facts: ManagedGroupFacts) -> Finding | None:
    policy = facts.group.get("instanceLifecyclePolicy", {})
    default = policy.get("defaultActionOnFailure", "REPAIR")
    action = policy.get("onFailedHealthCheck", "DEFAULT_ACTION")
    if action == "DEFAULT_ACTION":
        action = default
    if not facts.group.get("autoHealingPolicies") or action == "DO_NOTHING":
        return None
    return _warning(
        "autohealing",
        f"group {facts.name} recreates instances whose health check fails, even while jobs run on "
        "them",
        facts.update("--clear-autohealing"),
    )


def _proactive(facts: ManagedGroupFacts) -> Finding | None:
    if facts.group.get("updatePolicy", {}).get("type") != "PROACTIVE":
        return None
    return _warning(
        "update-policy",
        f"group {facts.name} replaces its instances as soon as its template changes, even while "
        "jobs run on them",
        facts.update("--update-policy-type=opportunistic"),
    )


def _shape(facts: ManagedGroupFacts) -> Finding | None:
    shape = facts.group.get("distributionPolicy", {}).get("targetShape", "EVEN")
    if not facts.config.is_regional or shape in {"ANY", "ANY_SINGLE_ZONE"}:
        return None
    return _warning(
        "distribution",
        f"group {facts.name} spreads its instances over the zones ({shape}), so it waits when one "
        "zone has no capacity although others have",
        facts.update("--target-distribution-shape=any"),
    )


def _standby(facts: ManagedGroupFacts) -> Finding | None:
    if facts.group.get("standbyPolicy", {}).get("mode") != "SCALE_OUT_POOL":
        return None
    return _warning(
        "standby-policy",
        f"group {facts.name} uses suspended and stopped instances to scale out, so instances that "
        "hold suspended tasks may be resumed for others",
        facts.update("--standby-policy-mode=manual"),
    )


def _standby_pool(facts: ManagedGroupFacts) -> Finding | None:
    suspended = int(facts.group.get("targetSuspendedSize", 0))
    stopped = int(facts.group.get("targetStoppedSize", 0))
    if not suspended + stopped:
        return None
    return _warning(
        "standby-pool",
        f"group {facts.name} keeps {suspended} suspended and {stopped} stopped instances; unless "
        "they hold suspended tasks, they only cost money",
        facts.update("--suspended-size=0", "--stopped-size=0"),
    )


def _paging(facts: ManagedGroupFacts) -> Finding | None:
    members = int(facts.group.get("targetSize", 0))
    mode = facts.group.get("listManagedInstancesResults", "PAGELESS")
    if mode == "PAGINATED" or members <= MANY_MEMBERS:
        return None
    return Finding(
        Severity.INFO,
        "paging",
        f"group {facts.name} lists its {members} instances in one answer, which may take long",
        facts.update("--list-managed-instances-results=paginated"),
    )


def _graceful(facts: ManagedGroupFacts) -> Finding | None:
    policy = facts.scheduling.get("gracefulShutdown", {})
    if not policy.get("enabled"):
        return None
    seconds = policy.get("maxDuration", {}).get("seconds", "600")
    return _warning(
        "graceful-shutdown",
        f"instances of group {facts.name} may take {seconds} s to shut down, and cost money until "
        "then; use an instance template without graceful shutdown",
        gcloud("compute", "instance-templates", "create", "--help"),
    )


def _run_duration(facts: ManagedGroupFacts) -> Finding | None:
    seconds = facts.scheduling.get("maxRunDuration", {}).get("seconds")
    if seconds is None:
        return None
    return _warning(
        "max-run-duration",
        f"Google ends instances of group {facts.name} after {seconds} s, even while jobs run on "
        "them; use the scaler's max_instance_age instead, or set it well below",
        gcloud("compute", "instance-templates", "create", "--help"),
    )


def _user(facts: ManagedGroupFacts) -> Finding | None:
    user = facts.connector.username
    os = facts.connector.os or "linux"
    if user in {None, USER} or not pushes_keys(facts.connector, os):
        return None
    return _warning(
        "username",
        f"connector_config.username: the guest agent manages the user {user!r} from now on; if the "
        "image has this user, the agent may take its groups away when its last key expires",
        f'remove username, so that the agent makes the user "{USER}"',
    )


def _host_keys(facts: ManagedGroupFacts) -> Finding | None:
    if facts.config.host_keys != "guest-attributes" or not facts.complete:
        return None
    project = metadata_of(facts.project, "commonInstanceMetadata")
    if is_true(
        facts.metadata.get("enable-guest-attributes", project.get("enable-guest-attributes"))
    ):
        return None
    return _error(
        "guest-attributes",
        f'host_keys = "guest-attributes", but instances of group {facts.name} do not publish their '
        "host keys: enable-guest-attributes is not TRUE in the metadata of their template",
        facts.set_metadata("enable-guest-attributes=TRUE"),
    )


_RULES: tuple[Callable[[ManagedGroupFacts], Finding | None], ...] = (
    _autoscaler,
    _stateful,
    _redistribution,
    _bulk,
    _os_login,
    _host_keys,
    _repair,
    _autohealing,
    _proactive,
    _shape,
    _standby,
    _standby_pool,
    _graceful,
    _run_duration,
    _user,
    _paging,
)
