"""Finds settings of a group that would cause problems later.

Each rule is a function from AWS's description of the group to at most one
finding, with the exact command that fixes it. An `ERROR` is a setting with
which no scaler can work. Each hook, policy or action that works on the group from
outside has a finding of its own.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.types import Finding, Severity
from fleeting_plugin_aws._commands import group_command, list_groups_command, update_group_command
from fleeting_plugin_aws._hooks import hook_wait
from fleeting_plugin_aws._states import lifecycle_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

# The most instances for which a finding shows a command each.
MOST_SHOWN = 5
# One command can protect this many instances.
MOST_PROTECTED = 50

__all__ = ("GroupFacts", "by_severity", "find_problems", "missing_group", "occupied_group")

_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


class GroupFacts(NamedTuple):
    """The input of the rules.

    Attributes:
        group: the group, as described by DescribeAutoScalingGroups.
        refreshes: its instance refreshes, as described by DescribeInstanceRefreshes.
        region: of the group.
        maximum: the scaler's `max_instances`; None if unlimited.
        hooks: its lifecycle hooks, as described by DescribeLifecycleHooks.
        policies: its scaling policies, as described by DescribePolicies.
        actions: its scheduled actions, as described by DescribeScheduledActions.
    """

    group: Mapping[str, Any]
    refreshes: Sequence[Mapping[str, Any]]
    region: str
    maximum: int | None
    hooks: Sequence[Mapping[str, Any]] = ()
    policies: Sequence[Mapping[str, Any]] = ()
    actions: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """Return the group's name."""
        return str(self.group["AutoScalingGroupName"])

    def command(self, verb: str, *arguments: str) -> str:
        """Return the command that runs a verb of `aws autoscaling` on the group."""
        return group_command(self.name, self.region, verb, *arguments)

    def update(self, *arguments: str) -> str:
        """Return the command that changes the group's settings."""
        return update_group_command(self.name, self.region, *arguments)

    @property
    def suspended(self) -> set[str]:
        """Return the names of the group's suspended processes."""
        return {str(one["ProcessName"]) for one in self.group.get("SuspendedProcesses", ())}


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the most severe first, and otherwise in their order."""
    return sorted(findings, key=lambda one: _ORDER[one.severity])


def find_problems(facts: GroupFacts) -> list[Finding]:
    """Return the problems of a group, the most severe first."""
    found = [finding for rule in _RULES if (finding := rule(facts)) is not None]
    return by_severity([*found, *_hooks(facts), *_policies(facts), *_actions(facts)])


def missing_group(name: str, region: str) -> Finding:
    """Return the finding for a group that does not exist."""
    return _error(
        "group-missing",
        f"there is no Auto Scaling group {name} in {region}, or these credentials belong to "
        "another account; set name and region in plugin_config",
        list_groups_command(region),
    )


def occupied_group(facts: GroupFacts) -> list[Finding]:
    """Return the finding for a group in which a scaler that starts now has no room."""
    members = [
        str(one["InstanceId"])
        for one in facts.group.get("Instances", ())
        if not str(one.get("LifecycleState", "")).startswith(("Warmed:", "Terminat"))
    ]
    if facts.maximum is None or not facts.maximum <= len(members):
        return []
    return [
        _warning(
            "occupied",
            f"group {facts.name} has {len(members)} instances already, and max_instances is "
            f"{facts.maximum}: a scaler whose state does not know them cannot create any",
            'set unknown_instances = "adopt" in [runners.autoscaler.extensions] if the scaler may '
            "use them, or remove those that no scaler uses: "
            + "; ".join(
                shlex.join(
                    [
                        *("aws", "autoscaling", "terminate-instance-in-auto-scaling-group"),
                        *("--region", facts.region, "--instance-id", id),
                        "--should-decrement-desired-capacity",
                    ]
                )
                for id in members[:MOST_SHOWN]
            ),
        )
    ]


def _error(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, reason, fix)


def _warning(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.WARNING, code, reason, fix)


def _being_deleted(facts: GroupFacts) -> Finding | None:
    if not facts.group.get("Status"):
        return None
    return _error(
        "group-deleting",
        f"group {facts.name} is being deleted ({facts.group['Status']}); create it again "
        "afterwards, or set name to another group",
        list_groups_command(facts.region, facts.name),
    )


def _no_room(facts: GroupFacts) -> Finding | None:
    maximum = int(facts.group["MaxSize"])
    if maximum == 0:
        wanted = str(facts.maximum or 10)
        reason = f"group {facts.name} has a max_size of 0, so it cannot have instances"
        return _error("max-size", reason, facts.update("--max-size", wanted))
    if facts.maximum is not None and maximum < facts.maximum:
        return _warning(
            "max-size",
            f"group {facts.name} has a max_size of {maximum}, which is less than the "
            f"{facts.maximum} instances that max_instances allows",
            facts.update("--max-size", str(facts.maximum)),
        )
    return None


def _minimum(facts: GroupFacts) -> Finding | None:
    minimum = int(facts.group["MinSize"])
    if minimum == 0:
        return None
    fix = facts.update("--min-size", "0")
    if facts.maximum is not None and minimum > facts.maximum:
        return _error(
            "min-size",
            f"group {facts.name} has a min_size of {minimum}, which is more than the "
            f"{facts.maximum} instances that max_instances allows",
            fix,
        )
    return _warning(
        "min-size",
        f"group {facts.name} has a min_size of {minimum}, so the last {minimum} of its instances "
        "cannot be removed even when they are idle",
        fix,
    )


def _dead_processes(facts: GroupFacts) -> Finding | None:
    dead = sorted(facts.suspended & {"Launch", "Terminate"})
    if not dead:
        return None
    return _error(
        "suspended-processes",
        f"group {facts.name} has {' and '.join(dead)} suspended, so instances would never "
        f"be {'launched' if 'Launch' in dead else 'removed'}",
        facts.command("resume-processes", "--scaling-processes", *dead),
    )


def _rebalancing(facts: GroupFacts) -> Finding | None:
    zones = facts.group.get("AvailabilityZones", ())
    if len(zones) < 2 or "AZRebalance" in facts.suspended:  # noqa: PLR2004 - two can differ
        return None
    return _warning(
        "az-rebalance",
        f"group {facts.name} has {len(zones)} zones and AZRebalance is not suspended, so AWS may "
        "end instances with running jobs to balance the zones",
        facts.command("suspend-processes", "--scaling-processes", "AZRebalance"),
    )


def _unprotected(facts: GroupFacts) -> Finding | None:
    if facts.group.get("NewInstancesProtectedFromScaleIn"):
        return None
    return _warning(
        "scale-in-protection",
        f"group {facts.name} does not protect new instances from scale-in, so AWS may end those "
        "with running jobs, and failed launches cannot be given up safely",
        facts.update("--new-instances-protected-from-scale-in"),
    )


def _unprotected_members(facts: GroupFacts) -> Finding | None:
    """Return the members that were launched before the group protected new ones."""
    exposed = [
        str(one["InstanceId"])
        for one in facts.group.get("Instances", ())
        if not one.get("ProtectedFromScaleIn")
        and lifecycle_of(str(one.get("LifecycleState", ""))).counts
        and not str(one.get("LifecycleState", "")).startswith("Warmed:")
    ]
    if not exposed or not facts.group.get("NewInstancesProtectedFromScaleIn"):
        return None
    return _warning(
        "unprotected-instances",
        f"{len(exposed)} instances of group {facts.name} are not protected from scale-in, so AWS "
        "may end those with running jobs, and failed launches cannot be given up safely",
        facts.command(
            "set-instance-protection",
            "--protected-from-scale-in",
            "--instance-ids",
            *exposed[:MOST_PROTECTED],
        ),
    )


def _refresh(facts: GroupFacts) -> Finding | None:
    active = {"Pending", "InProgress", "Baking", "RollbackInProgress"}
    if not any(one.get("Status") in active for one in facts.refreshes):
        return None
    return _warning(
        "instance-refresh",
        f"group {facts.name} is replacing its instances (instance refresh), even while jobs run on "
        "them",
        facts.command("cancel-instance-refresh"),
    )


def _lifetime(facts: GroupFacts) -> Finding | None:
    seconds = int(facts.group.get("MaxInstanceLifetime") or 0)
    if not seconds:
        return None
    return _warning(
        "max-instance-lifetime",
        f"group {facts.name} replaces instances after {seconds} s, even while jobs run on them; "
        "use the scaler's max_use_count or max_instance_age instead",
        facts.update("--max-instance-lifetime", "0"),
    )


def _warm_pool(facts: GroupFacts) -> Finding | None:
    if not facts.group.get("WarmPoolConfiguration"):
        return None
    return _warning(
        "warm-pool",
        f"group {facts.name} has a warm pool, whose instances cost money, are not counted by the "
        "scaler, and may return to the pool after use",
        facts.command("delete-warm-pool"),
    )


def _weights(facts: GroupFacts) -> Finding | None:
    template = facts.group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    weights = {str(one.get("WeightedCapacity") or "1") for one in template.get("Overrides", ())}
    if weights <= {"1"}:
        return None
    return _error(
        "weights",
        f"group {facts.name} gives its instance types weights ({', '.join(sorted(weights))}), so "
        "its capacity is counted in them and not in instances; remove WeightedCapacity from the "
        "overrides of its mixed instances policy",
        facts.update("--mixed-instances-policy", "file://policy-without-weights.json"),
    )


def _units(facts: GroupFacts) -> Finding | None:
    kind = facts.group.get("DesiredCapacityType") or "units"
    if kind == "units":
        return None
    return _error(
        "capacity-type",
        f"group {facts.name} counts its capacity in {kind} and not in instances",
        facts.update("--desired-capacity-type", "units"),
    )


def _capacity_rebalance(facts: GroupFacts) -> Finding | None:
    if not facts.group.get("CapacityRebalance"):
        return None
    return _warning(
        "capacity-rebalance",
        f"group {facts.name} replaces spot instances as soon as EC2 expects to interrupt them, "
        "even while jobs run on them",
        facts.update("--no-capacity-rebalance"),
    )


def _hooks(facts: GroupFacts) -> Iterator[Finding]:
    for hook in facts.hooks:
        name = str(hook["LifecycleHookName"])
        wait = hook_wait(hook)
        effect = f"before it serves, for up to {wait}, and jobs wait that long"
        if str(hook.get("LifecycleTransition", "")).endswith("TERMINATING"):
            effect = f"before it ends, for up to {wait}, and it costs money that long"
        yield _warning(
            "lifecycle-hook",
            f"the lifecycle hook {name} of group {facts.name} holds each instance {effect}, unless "
            "a program completes the hook",
            facts.command("delete-lifecycle-hook", "--lifecycle-hook-name", name),
        )


def _policies(facts: GroupFacts) -> Iterator[Finding]:
    """Return the policies that are in force."""
    for policy in facts.policies:
        kind = str(policy.get("PolicyType") or "SimpleScaling")
        predictive: Mapping[str, Any] = policy.get("PredictiveScalingConfiguration") or {}
        # Alarms start all policies but the predictive ones.
        idle = "AlarmNotification" in facts.suspended
        if kind == "PredictiveScaling":
            idle = predictive.get("Mode", "ForecastOnly") == "ForecastOnly"
        if idle or policy.get("Enabled") is False:
            continue
        name = str(policy["PolicyName"])
        yield _warning(
            "scaling-policy",
            f"the scaling policy {name} ({kind}) changes the size of group {facts.name} against "
            "the scaler, which does not know the instances that it adds",
            facts.command("delete-policy", "--policy-name", name),
        )


def _actions(facts: GroupFacts) -> Iterator[Finding]:
    if "ScheduledActions" in facts.suspended:
        return
    for action in facts.actions:
        name = str(action["ScheduledActionName"])
        limits = ("MinSize", "MaxSize", "DesiredCapacity")
        sets = ", ".join(f"{one} = {action[one]}" for one in limits if one in action)
        yield _warning(
            "scheduled-action",
            f"the scheduled action {name} sets {sets or 'the size'} of group {facts.name} against "
            "the scaler, at times of its own",
            facts.command("delete-scheduled-action", "--scheduled-action-name", name),
        )


_RULES: tuple[Callable[[GroupFacts], Finding | None], ...] = (
    _being_deleted,
    _no_room,
    _minimum,
    _dead_processes,
    _weights,
    _units,
    _rebalancing,
    _unprotected,
    _unprotected_members,
    _refresh,
    _lifetime,
    _warm_pool,
    _capacity_rebalance,
)
