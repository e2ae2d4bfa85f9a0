"""What would hurt later, as far as AWS's description of a group tells.

Each rule is a function from that description to at most one finding, with the
exact command that mends it. An `ERROR` is what no scaler could live with.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.types import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ("Facts", "find_problems", "group_command", "missing_group")

_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


class Facts(NamedTuple):
    """What is known of a group before it is used.

    Attributes:
        group: what DescribeAutoScalingGroups says.
        refreshes: what DescribeInstanceRefreshes says.
        region: where it is.
        maximum: how many instances will be asked for at most; None if unlimited.
    """

    group: Mapping[str, Any]
    refreshes: Sequence[Mapping[str, Any]]
    region: str
    maximum: int | None

    @property
    def name(self) -> str:
        """Return the group's name."""
        return str(self.group["AutoScalingGroupName"])

    def command(self, verb: str, *arguments: str) -> str:
        """Return a command of the `aws` tool that concerns the group, quoted for a shell."""
        return group_command(self.name, self.region, verb, *arguments)

    def update(self, *arguments: str) -> str:
        """Return the command that changes the group's settings."""
        return self.command("update-auto-scaling-group", *arguments)

    @property
    def suspended(self) -> set[str]:
        """Return which of the group's processes are suspended."""
        return {str(one["ProcessName"]) for one in self.group.get("SuspendedProcesses", ())}


def group_command(name: str, region: str, verb: str, *arguments: str) -> str:
    """Return a command of the `aws` tool that concerns a group, quoted for a shell."""
    group = ("--region", region, "--auto-scaling-group-name", name)
    return shlex.join(["aws", "autoscaling", verb, *group, *arguments])


def find_problems(facts: Facts) -> list[Finding]:
    """Return what is wrong with a group, the worst first."""
    found = [finding for rule in _RULES if (finding := rule(facts)) is not None]
    return sorted(found, key=lambda one: _ORDER[one.severity])


def missing_group(name: str, region: str) -> Finding:
    """Return what is to be said when there is no such group."""
    command = shlex.join(["aws", "autoscaling", "describe-auto-scaling-groups", "--region", region])
    return _error(
        "group-missing",
        f"there is no Auto Scaling group {name} in {region}, or these credentials are of another "
        "account; set name and region in plugin_config",
        command,
    )


def _error(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, reason, fix)


def _warning(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.WARNING, code, reason, fix)


def _being_deleted(facts: Facts) -> Finding | None:
    if not facts.group.get("Status"):
        return None
    return _error(
        "group-deleting",
        f"group {facts.name} is being deleted ({facts.group['Status']}); create it again when that "
        "is over, or name another one",
        facts.command("describe-auto-scaling-groups").replace(
            "--auto-scaling-group-name ", "--auto-scaling-group-names "
        ),
    )


def _no_room(facts: Facts) -> Finding | None:
    maximum = int(facts.group["MaxSize"])
    if maximum == 0:
        wanted = str(facts.maximum or 10)
        reason = f"group {facts.name} has a max_size of 0, so it can have no instance"
        return _error("max-size", reason, facts.update("--max-size", wanted))
    if facts.maximum is not None and maximum < facts.maximum:
        return _warning(
            "max-size",
            f"group {facts.name} has a max_size of {maximum}, which is less than the "
            f"{facts.maximum} instances that max_instances allows",
            facts.update("--max-size", str(facts.maximum)),
        )
    return None


def _minimum(facts: Facts) -> Finding | None:
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
        f"group {facts.name} has a min_size of {minimum}, and AWS lets nobody remove the last "
        f"{minimum} of its instances, idle or not",
        fix,
    )


def _dead_processes(facts: Facts) -> Finding | None:
    dead = sorted(facts.suspended & {"Launch", "Terminate"})
    if not dead:
        return None
    return _error(
        "suspended-processes",
        f"group {facts.name} has {' and '.join(dead)} suspended, so instances would never "
        f"{'come' if 'Launch' in dead else 'go'}",
        facts.command("resume-processes", "--scaling-processes", *dead),
    )


def _rebalancing(facts: Facts) -> Finding | None:
    zones = facts.group.get("AvailabilityZones", ())
    if len(zones) < 2 or "AZRebalance" in facts.suspended:  # noqa: PLR2004 - two can differ
        return None
    return _warning(
        "az-rebalance",
        f"group {facts.name} has {len(zones)} zones and AZRebalance is not suspended, so AWS may "
        "end instances with running jobs to even the zones out",
        facts.command("suspend-processes", "--scaling-processes", "AZRebalance"),
    )


def _unprotected(facts: Facts) -> Finding | None:
    if facts.group.get("NewInstancesProtectedFromScaleIn"):
        return None
    return _warning(
        "scale-in-protection",
        f"group {facts.name} does not protect new instances from scale-in, so AWS may end those "
        "with running jobs, and what failed to launch cannot be taken back safely",
        facts.update("--new-instances-protected-from-scale-in"),
    )


def _refresh(facts: Facts) -> Finding | None:
    active = {"Pending", "InProgress", "Baking", "RollbackInProgress"}
    if not any(one.get("Status") in active for one in facts.refreshes):
        return None
    return _warning(
        "instance-refresh",
        f"group {facts.name} is replacing its instances (instance refresh), with or without jobs",
        facts.command("cancel-instance-refresh"),
    )


def _lifetime(facts: Facts) -> Finding | None:
    seconds = int(facts.group.get("MaxInstanceLifetime") or 0)
    if not seconds:
        return None
    return _warning(
        "max-instance-lifetime",
        f"group {facts.name} replaces instances after {seconds} s, with or without jobs; limit "
        "their age with max_use_count or instance_max_age of the scaler instead",
        facts.update("--max-instance-lifetime", "0"),
    )


def _warm_pool(facts: Facts) -> Finding | None:
    if not facts.group.get("WarmPoolConfiguration"):
        return None
    return _warning(
        "warm-pool",
        f"group {facts.name} has a warm pool, whose instances cost money beside those that the "
        "scaler counts, and may return to it after use",
        facts.command("delete-warm-pool"),
    )


def _weights(facts: Facts) -> Finding | None:
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


def _units(facts: Facts) -> Finding | None:
    kind = facts.group.get("DesiredCapacityType") or "units"
    if kind == "units":
        return None
    return _error(
        "capacity-type",
        f"group {facts.name} counts its capacity in {kind} and not in instances",
        facts.update("--desired-capacity-type", "units"),
    )


def _capacity_rebalance(facts: Facts) -> Finding | None:
    if not facts.group.get("CapacityRebalance"):
        return None
    return _warning(
        "capacity-rebalance",
        f"group {facts.name} replaces spot instances as soon as EC2 thinks that it may need them, "
        "with or without jobs",
        facts.update("--no-capacity-rebalance"),
    )


_RULES: tuple[Callable[[Facts], Finding | None], ...] = (
    _being_deleted,
    _no_room,
    _minimum,
    _dead_processes,
    _weights,
    _units,
    _rebalancing,
    _unprotected,
    _refresh,
    _lifetime,
    _warm_pool,
    _capacity_rebalance,
)
