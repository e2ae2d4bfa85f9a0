"""Findings about a group's settings, and the commands that fix them."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from fleeting.types import Severity
from fleeting_plugin_aws._findings import GroupFacts, find_problems, missing_group
from fleeting_plugin_aws._policy import minimal_policy, policy_text

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


def facts(maximum: int | None = 10, refreshes: Any = (), **changes: Any) -> GroupFacts:
    """Return the facts of a group without problems, with changes."""
    return GroupFacts({**GOOD, **changes}, refreshes, "eu-central-1", maximum)


def under(*suspended: str, **influences: Any) -> GroupFacts:
    """Return the facts of a group on which something works from outside."""
    processes = [{"ProcessName": name} for name in ("AZRebalance", *suspended)]
    return facts(SuspendedProcesses=processes)._replace(**influences)


def overrides(*weights: str | None) -> dict[str, Any]:
    """Return a mixed instances policy whose instance types have these weights."""
    entries = [
        {"InstanceType": f"m{number}.large", **({"WeightedCapacity": one} if one else {})}
        for number, one in enumerate(weights, 5)
    ]
    return {"LaunchTemplate": {"Overrides": entries}}


def test_good_group_has_no_findings() -> None:
    """A group without problems has no findings, with and without a limit."""
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
            facts(
                Instances=[
                    {"InstanceId": id, "LifecycleState": state, "ProtectedFromScaleIn": protected}
                    for id, state, protected in (
                        ("i-1", "InService", True),
                        ("i-2", "InService", False),
                        ("i-3", "Terminating", False),
                        ("i-4", "Warmed:Stopped", False),
                    )
                ]
            ),
            Severity.WARNING,
            "unprotected-instances",
            (
                "aws autoscaling set-instance-protection --region eu-central-1 "
                "--auto-scaling-group-name 'my builders' --protected-from-scale-in "
                "--instance-ids i-2"
            ),
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
def test_harmful_settings(given: GroupFacts, severity: Severity, code: str, fix: str) -> None:
    """Each harmful setting is found, and the fix is a complete command."""
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
def test_harmful_states(given: GroupFacts, severity: Severity, code: str, verb: str) -> None:
    """Each harmful state is found, and the fix is a command that names the group."""
    [found] = find_problems(given)
    assert (found.severity, found.code) == (severity, code)
    words = shlex.split(found.fix)
    assert words[:3] == ["aws", "autoscaling", verb]
    assert "my builders" in words


LAUNCHING = {
    "LifecycleHookName": "set up",
    "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
    "HeartbeatTimeout": 90,
}
TERMINATING = {
    "LifecycleHookName": "drain",
    "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
}
PREDICTIVE = {"PolicyName": "guess", "PolicyType": "PredictiveScaling"}
TRACKING = {"PolicyName": "cpu", "PolicyType": "TargetTrackingScaling", "Enabled": True}
ACTION = {"ScheduledActionName": "night", "MinSize": 0, "DesiredCapacity": 3}


@pytest.mark.parametrize(
    ("given", "code", "words", "fix"),
    [
        (
            under(hooks=[LAUNCHING]),
            "lifecycle-hook",
            "before it serves, for up to 1m30s",
            "delete-lifecycle-hook {} --lifecycle-hook-name 'set up'",
        ),
        (
            under(hooks=[TERMINATING]),
            "lifecycle-hook",
            "before it ends, for up to 1h, and it costs money",
            "delete-lifecycle-hook {} --lifecycle-hook-name drain",
        ),
        (
            under(policies=[TRACKING]),
            "scaling-policy",
            "cpu (TargetTrackingScaling)",
            "delete-policy {} --policy-name cpu",
        ),
        (
            under(
                "AlarmNotification",
                policies=[
                    {
                        **PREDICTIVE,
                        "PredictiveScalingConfiguration": {"Mode": "ForecastAndScale"},
                    }
                ],
            ),
            "scaling-policy",
            "guess (PredictiveScaling)",
            "delete-policy {} --policy-name guess",
        ),
        (
            under(actions=[ACTION]),
            "scheduled-action",
            "MinSize = 0, DesiredCapacity = 3",
            "delete-scheduled-action {} --scheduled-action-name night",
        ),
    ],
)
def test_influences(given: GroupFacts, code: str, words: str, fix: str) -> None:
    """Whatever works on the group from outside is found, with the command that removes it."""
    [found] = find_problems(given)
    assert (found.severity, found.code) == (Severity.WARNING, code)
    assert words in found.reason
    group = "--region eu-central-1 --auto-scaling-group-name 'my builders'"
    assert found.fix == f"aws autoscaling {fix.format(group)}"


def test_each_influence_has_a_finding() -> None:
    """Two hooks are two findings, because each has a command of its own."""
    found = find_problems(under(hooks=[LAUNCHING, TERMINATING], actions=[ACTION]))
    assert [one.code for one in found] == ["lifecycle-hook", "lifecycle-hook", "scheduled-action"]


@pytest.mark.parametrize(
    "given",
    [
        under("AlarmNotification", policies=[TRACKING]),
        under(policies=[{**TRACKING, "Enabled": False}]),
        under(policies=[PREDICTIVE]),
        under("ScheduledActions", actions=[ACTION]),
    ],
)
def test_influences_that_are_switched_off(given: GroupFacts) -> None:
    """Policies and actions that are not in force are not reported."""
    assert find_problems(given) == []


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
def test_harmless_states(given: GroupFacts) -> None:
    """States that only resemble a harmful one are not reported."""
    assert find_problems(given) == []


def test_errors_come_first() -> None:
    """Of several findings the errors come before the warnings."""
    found = find_problems(facts(SuspendedProcesses=[{"ProcessName": "Terminate"}], MinSize=1))
    assert [one.code for one in found] == ["suspended-processes", "min-size", "az-rebalance"]


def test_missing_group_is_an_error() -> None:
    """A wrong name is an error, with the command that lists the existing groups."""
    found = missing_group("my builders", "eu-central-1")
    assert found.severity is Severity.ERROR
    assert "my builders" in found.reason
    assert found.fix == "aws autoscaling describe-auto-scaling-groups --region eu-central-1"


def test_minimal_policy_without_options() -> None:
    """The policy allows what is always needed, and nothing that is not configured."""
    text = policy_text(minimal_policy("builders", "eu-central-1", account="123", user=None))
    assert "autoscaling:SetDesiredCapacity" in text
    for action in ("SendSSHPublicKey", "GetPasswordData", "GetConsoleOutput", "sqs:"):
        assert action not in text


def test_minimal_policy_with_all_options() -> None:
    """Each option adds its actions, on its resources only."""
    document = minimal_policy(
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
    assert statements["WatchInterruptions"]["Resource"] == (
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
