"""What would hurt later, and the commands that mend it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from fleeting.types import Severity
from fleeting_plugin_aws._findings import Facts, find_problems, missing_group
from fleeting_plugin_aws._policy import policy, policy_text

GOOD: dict[str, Any] = {
    "AutoScalingGroupName": "my builders",
    "MinSize": 0,
    "MaxSize": 10,
    "DesiredCapacity": 0,
    "AvailabilityZones": ["eu-central-1a", "eu-central-1b"],
    "SuspendedProcesses": [{"ProcessName": "AZRebalance"}],
    "NewInstancesProtectedFromScaleIn": True,
}
UPDATE = (
    "aws autoscaling update-auto-scaling-group --region eu-central-1 "
    "--auto-scaling-group-name 'my builders'"
)


def facts(maximum: int | None = 10, refreshes: Any = (), **changes: Any) -> Facts:
    """Return what is known of a group that is good but for the changes."""
    return Facts({**GOOD, **changes}, refreshes, "eu-central-1", maximum)


def overrides(*weights: str | None) -> dict[str, Any]:
    """Return a mixed instances policy whose types have these weights."""
    entries = [
        {"InstanceType": f"m{number}.large", **({"WeightedCapacity": one} if one else {})}
        for number, one in enumerate(weights, 5)
    ]
    return {"LaunchTemplate": {"Overrides": entries}}


def test_a_good_group_has_no_findings() -> None:
    """Nothing is said about a group of which there is nothing to say."""
    assert find_problems(facts()) == []
    assert find_problems(facts(maximum=None)) == []


@pytest.mark.parametrize(
    ("given", "severity", "code", "fix"),
    [
        (facts(MaxSize=0), Severity.ERROR, "max-size", f"{UPDATE} --max-size 10"),
        (facts(maximum=20), Severity.WARNING, "max-size", f"{UPDATE} --max-size 20"),
        (facts(MinSize=2), Severity.WARNING, "min-size", f"{UPDATE} --min-size 0"),
        (facts(maximum=1, MinSize=2), Severity.ERROR, "min-size", f"{UPDATE} --min-size 0"),
        (
            facts(NewInstancesProtectedFromScaleIn=False),
            Severity.WARNING,
            "scale-in-protection",
            f"{UPDATE} --new-instances-protected-from-scale-in",
        ),
        (
            facts(MaxInstanceLifetime=86400),
            Severity.WARNING,
            "max-instance-lifetime",
            f"{UPDATE} --max-instance-lifetime 0",
        ),
        (
            facts(CapacityRebalance=True),
            Severity.WARNING,
            "capacity-rebalance",
            f"{UPDATE} --no-capacity-rebalance",
        ),
        (
            facts(DesiredCapacityType="vcpu"),
            Severity.ERROR,
            "capacity-type",
            f"{UPDATE} --desired-capacity-type units",
        ),
    ],
)
def test_settings_that_hurt(given: Facts, severity: Severity, code: str, fix: str) -> None:
    """Each setting that hurts is found, and the fix is a command to be copied."""
    [found] = find_problems(given)
    assert (found.severity, found.code, found.fix) == (severity, code, fix)


@pytest.mark.parametrize(
    ("given", "severity", "code", "verb"),
    [
        (facts(SuspendedProcesses=[]), Severity.WARNING, "az-rebalance", "suspend-processes"),
        (
            facts(SuspendedProcesses=[{"ProcessName": "Launch"}, {"ProcessName": "AZRebalance"}]),
            Severity.ERROR,
            "suspended-processes",
            "resume-processes",
        ),
        (
            facts(refreshes=[{"Status": "InProgress"}]),
            Severity.WARNING,
            "instance-refresh",
            "cancel-instance-refresh",
        ),
        (
            facts(WarmPoolConfiguration={"MinSize": 1}),
            Severity.WARNING,
            "warm-pool",
            "delete-warm-pool",
        ),
        (
            facts(MixedInstancesPolicy=overrides("2", None)),
            Severity.ERROR,
            "weights",
            "update-auto-scaling-group",
        ),
        (
            facts(Status="Delete in progress"),
            Severity.ERROR,
            "group-deleting",
            "describe-auto-scaling-groups",
        ),
    ],
)
def test_states_that_hurt(given: Facts, severity: Severity, code: str, verb: str) -> None:
    """Each state that hurts is found, and the fix is a command about this very group."""
    [found] = find_problems(given)
    assert (found.severity, found.code) == (severity, code)
    words = shlex.split(found.fix)
    assert words[:3] == ["aws", "autoscaling", verb]
    assert "my builders" in words


@pytest.mark.parametrize(
    "given",
    [
        facts(SuspendedProcesses=[], AvailabilityZones=["eu-central-1a"]),
        facts(refreshes=[{"Status": "Successful"}]),
        facts(MixedInstancesPolicy=overrides("1", None)),
        facts(MixedInstancesPolicy={"LaunchTemplate": {}}),
        facts(DesiredCapacityType="units", Status="", MaxInstanceLifetime=0),
    ],
)
def test_states_that_do_not_hurt(given: Facts) -> None:
    """What only looks like one of these is none of them."""
    assert find_problems(given) == []


def test_the_worst_comes_first() -> None:
    """Of several findings the errors come before the warnings."""
    found = find_problems(facts(SuspendedProcesses=[{"ProcessName": "Terminate"}], MinSize=1))
    assert [one.code for one in found] == ["suspended-processes", "min-size", "az-rebalance"]


def test_a_missing_group_is_an_error() -> None:
    """A name that is wrong is said to be, with the command that shows the right ones."""
    found = missing_group("my builders", "eu-central-1")
    assert found.severity is Severity.ERROR
    assert "my builders" in found.reason
    assert found.fix == "aws autoscaling describe-auto-scaling-groups --region eu-central-1"


def test_policy_has_what_is_used() -> None:
    """The least policy has what always happens, and nothing of what is not configured."""
    text = policy_text(policy("builders", "eu-central-1", account="123", user=None))
    assert "autoscaling:SetDesiredCapacity" in text
    for action in ("SendSSHPublicKey", "GetPasswordData", "GetConsoleOutput", "sqs:"):
        assert action not in text


def test_policy_of_everything() -> None:
    """What is configured adds its actions, on these resources only."""
    document = policy(
        "builders",
        "cn-north-1",
        account="123",
        partition="aws-cn",
        user="ubuntu",
        passwords=True,
        console=True,
        queue_url="https://sqs.cn-north-1.amazonaws.com.cn/456/interruptions",
    )
    statements = {one["Sid"]: one for one in json.loads(policy_text(document))["Statement"]}
    assert statements["HearOfInterruptions"]["Resource"] == (
        "arn:aws-cn:sqs:cn-north-1:456:interruptions"
    )
    assert statements["PushKeys"]["Condition"]["StringEquals"] == {
        "aws:ResourceTag/aws:autoscaling:groupName": "builders",
        "ec2:osuser": "ubuntu",
    }
    assert {"ec2:GetPasswordData", "ec2:GetConsoleOutput"} <= set(
        statements["UseInstances"]["Action"]
    )
    assert statements["Scale"]["Resource"] == (
        "arn:aws-cn:autoscaling:cn-north-1:123:autoScalingGroup:*:autoScalingGroupName/builders"
    )
