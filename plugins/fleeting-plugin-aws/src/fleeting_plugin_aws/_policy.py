"""Writes the minimal IAM policy for a configuration.

AWS has no resource for the describing actions, so they cannot be limited to a
group. All other actions are limited to this group and its instances, which AWS
marks with a tag that only AWS can set.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("minimal_policy", "policy_text")

DESCRIBING = (
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeInstanceRefreshes",
    "autoscaling:DescribeLifecycleHooks",
    "autoscaling:DescribePolicies",
    "autoscaling:DescribeScalingActivities",
    "autoscaling:DescribeScheduledActions",
    "ec2:DescribeInstances",
)
CHANGING = (
    "autoscaling:SetDesiredCapacity",
    "autoscaling:TerminateInstanceInAutoScalingGroup",
)
STANDBY = ("autoscaling:EnterStandby", "autoscaling:ExitStandby")
POWER = ("ec2:CreateTags", "ec2:DeleteTags", "ec2:StartInstances", "ec2:StopInstances")
QUEUE = ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")


def minimal_policy(
    name: str,
    region: str,
    *,
    account: str = "*",
    partition: str = "aws",
    user: str | None = "ec2-user",
    passwords: bool = False,
    console: bool = False,
    queue_url: str | None = None,
) -> Mapping[str, Any]:
    """Return the policy document.

    Args:
        name: of the group.
        region: of the group.
        account: of the group; `*` if it is unknown.
        partition: such as `aws` or `aws-cn`.
        user: the user for whom keys are pushed through EC2 Instance Connect; None if no key
            is pushed.
        passwords: whether passwords of Windows instances are decrypted.
        console: whether host keys are read from the console.
        queue_url: the interruption queue; None if there is none.
    """
    group = f"arn:{partition}:autoscaling:{region}:{account}:autoScalingGroup:*"
    group += f":autoScalingGroupName/{name}"
    instances = f"arn:{partition}:ec2:{region}:{account}:instance/*"
    ours = {"StringEquals": {"aws:ResourceTag/aws:autoscaling:groupName": name}}
    used = [*POWER]
    if passwords:
        used.append("ec2:GetPasswordData")
    if console:
        used.append("ec2:GetConsoleOutput")
    statements = [
        _allow("Describe", DESCRIBING, "*"),
        _allow("Scale", (*CHANGING, *STANDBY), group),
        _allow("UseInstances", sorted(used), instances, ours),
    ]
    if user is not None:
        condition = {"StringEquals": {**ours["StringEquals"], "ec2:osuser": user}}
        actions = ("ec2-instance-connect:SendSSHPublicKey",)
        statements.append(_allow("PushKeys", actions, instances, condition))
    if queue_url is not None:
        queue = queue_url.rstrip("/").rpartition("/")[2]
        owner = queue_url.rstrip("/").rpartition("/")[0].rpartition("/")[2]
        owner = owner if owner.isdigit() else account
        arn = f"arn:{partition}:sqs:{region}:{owner}:{queue}"
        statements.append(_allow("WatchInterruptions", QUEUE, arn))
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(
    name: str, actions: Sequence[str], resource: str, condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": name,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resource,
    }
    return statement | ({"Condition": condition} if condition is not None else {})


def policy_text(document: Mapping[str, Any]) -> str:
    """Return a policy as text, indented."""
    return json.dumps(document, indent=2)
