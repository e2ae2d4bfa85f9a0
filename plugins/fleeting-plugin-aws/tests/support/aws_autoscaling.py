"""The operations of Auto Scaling: AWS's rules in front of moto's instances.

Codes, messages and limits are AWS's own. A test that depends on unknown behaviour of
AWS fails with NotModelled, except for two assumptions:

* Terminating a member that is already terminating returns the same activity again, and
  does not decrement the desired capacity once more.
* While Terminate is suspended, terminations are accepted and have no effect.
"""

# ruff: noqa: N803, FBT001, FBT002 - parameters are named and ordered as in the contract
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_engine import NotModelled, paged
from aws_errors import validation_error
from aws_group import SERVING, STANDBY, STARTING, Wait
from aws_influences import Influences
from aws_moto import IMAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aws_engine import World
    from aws_group import Activity, Group, Member

__all__ = ("AutoScaling",)

DEFAULT_PAGE = 50
UNLIMITED = 10_000
DEFAULT_ACTIVITIES = 100
OUT_OF_SERVICE = "an instance was taken out of service in response to {}."
SUSPENSION = "User suspended at 2026-01-01T00:00:00Z"
PROCESSES = (
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
)
# Operations that moto models well enough.
PASSED_ON = {
    "DescribeWarmPool",
    "SetInstanceProtection",
}


class AutoScaling:
    """Answers the calls of the service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._influences = Influences()
        self._operations: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "DescribeAutoScalingGroups": self._describe_groups,
            "DescribeInstanceRefreshes": self._describe_refreshes,
            "DescribeScalingActivities": self._describe_activities,
            "EnterStandby": self._enter_standby,
            "ExitStandby": self._exit_standby,
            "ResumeProcesses": self._resume,
            "SetDesiredCapacity": self._set_desired,
            "SetInstanceHealth": self._set_health,
            "SuspendProcesses": self._suspend,
            "TerminateInstanceInAutoScalingGroup": self._terminate,
        }

    async def answer(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operation.

        Raises:
            AwsError: AWS would refuse it.
            NotModelled: it is not known what AWS would do.
        """
        if handler := self._operations.get(operation):
            async with self._world.lock:
                return await handler(**parameters)
        if operation in Influences.OPERATIONS:
            self._group(parameters["AutoScalingGroupName"])
            return self._influences.answer(operation, parameters, self._world.page_size)
        if operation in PASSED_ON:
            if name := parameters.get("AutoScalingGroupName"):
                self._group(name)
            return await self._world.engine.call("autoscaling", operation, **parameters)
        raise NotModelled(f"not modelled: {operation}")

    async def create(self, group: Group, *, protected: bool) -> None:
        """Create a group whose members are in service.

        Args:
            group: what it is.
            protected: whether its members are protected from scale-in.
        """
        engine, template = self._world.engine, f"template-{group.name}"
        data = {"ImageId": IMAGE["ami_id"], "InstanceType": group.types[0]}
        await engine.call(
            "ec2", "CreateLaunchTemplate", LaunchTemplateName=template, LaunchTemplateData=data
        )
        await engine.call(
            "autoscaling",
            "CreateAutoScalingGroup",
            AutoScalingGroupName=group.name,
            LaunchTemplate={"LaunchTemplateName": template, "Version": "1"},
            MinSize=0,
            MaxSize=UNLIMITED,  # the fake cloud checks the limits itself
            DesiredCapacity=0,
            AvailabilityZones=list(group.zones),
            NewInstancesProtectedFromScaleIn=protected,
        )
        async with self._world.lock:
            self._world.groups[group.name] = group
            await self.reconcile(group)
            group.settle()
            group.look(self._world.now())

    async def reconcile(self, group: Group) -> None:
        """Launch missing members where there is capacity, and end surplus ones."""
        if not group.suspended & {"Terminate", "ReplaceUnhealthy"}:
            for member in group.found_ill():
                await self.end(group, member, OUT_OF_SERVICE.format("an EC2 health check"))
        if not ("Launch" in group.suspended or group.is_being_deleted or group.is_delayed):
            await self._launch(group)
        if "Terminate" not in group.suspended:
            for member in group.victims():
                await self.end(group, member, OUT_OF_SERVICE.format("a difference in capacity"))

    async def end(self, group: Group, member: Member, cause: str) -> Activity:
        """Terminate a member."""
        activity = group.end(member, cause, self._world.now())
        self._hold(group, member, "TERMINATING")
        await self._world.engine.call(
            "autoscaling",
            "TerminateInstanceInAutoScalingGroup",
            InstanceId=member.id,
            ShouldDecrementDesiredCapacity=True,
        )
        await self._world.power_off(member.id, for_good=True)
        return activity

    def _hold(self, group: Group, member: Member, transition: str) -> None:
        """Let the hooks of a transition hold a member."""
        hold = self._influences.hold_of(group.name, transition)
        if hold is not None:
            member.state += ":Wait"
            member.wait = Wait(hold, self._world.now())

    async def _launch(self, group: Group) -> None:
        launches = group.launches(self._world.running(), self._world.shortages)
        if not launches:
            return
        now = self._world.now()
        running = sum(not member.is_ended for member in group.members.values())
        await self._world.engine.call(
            "autoscaling",
            "SetDesiredCapacity",
            AutoScalingGroupName=group.name,
            DesiredCapacity=running + len(launches),
        )
        facts = await self._facts_of(group.name)
        new = [one for one in facts["Instances"] if one["InstanceId"] not in group.members]
        for launch, one in zip(launches, new, strict=True):
            member = group.add(one["InstanceId"], launch, now)
            member.facts = one
            self._hold(group, member, "LAUNCHING")
            await self._world.power_on(member.id, group)

    async def _facts_of(self, name: str) -> dict[str, Any]:
        answer = await self._world.engine.call(
            "autoscaling", "DescribeAutoScalingGroups", AutoScalingGroupNames=[name]
        )
        facts: dict[str, Any] = answer["AutoScalingGroups"][0]
        return facts

    def _group(self, name: str) -> Group:
        if name not in self._world.groups:
            raise validation_error(
                f"AutoScalingGroup name not found - AutoScalingGroup {name} not found"
            )
        return self._world.groups[name]

    async def _describe_groups(
        self,
        AutoScalingGroupNames: list[str] | None = None,
        MaxRecords: int = DEFAULT_PAGE,
        NextToken: str | None = None,
        IncludeInstances: bool = True,
        **others: Any,
    ) -> dict[str, Any]:
        if others:
            raise NotModelled(
                f"not modelled: the parameters {sorted(others)} of DescribeAutoScalingGroups"
            )
        names = [n for n in AutoScalingGroupNames or self._world.groups if n in self._world.groups]
        page, token = paged(names, self._world.page_size, MaxRecords, NextToken)
        answers = [await self._look(self._world.groups[name]) for name in page]
        found = [answer for answer in answers if answer is not None]
        if not IncludeInstances:
            found = [answer | {"Instances": []} for answer in found]
        return {"AutoScalingGroups": found, **_next(token)}

    async def _look(self, group: Group) -> dict[str, Any] | None:
        """Advance the group by one describe, and return its description."""
        now = self._world.now()
        group.look(now)
        if group.is_being_deleted and not group.members:
            await self._world.engine.call(
                "autoscaling", "DeleteAutoScalingGroup", AutoScalingGroupName=group.name
            )
            del self._world.groups[group.name]
            return None
        await self.reconcile(group)
        facts = await self._facts_of(group.name)
        for one in facts.get("Instances", ()):
            if one["InstanceId"] in group.members:
                group.members[one["InstanceId"]].facts = one
        answer: dict[str, Any] = {
            **facts,
            "SuspendedProcesses": [
                {"ProcessName": name, "SuspensionReason": SUSPENSION}
                for name in sorted(group.suspended)
            ],
            "MinSize": group.minimum,
            "MaxSize": group.maximum,
            "DesiredCapacity": group.desired,
            "AvailabilityZones": list(group.zones),
            "Instances": [_listed(member) for member in group.members.values()],
        }
        answer |= _policy(group, facts)
        if group.is_being_deleted:
            answer["Status"] = "Delete in progress"
        answer |= self._world.group_facts.get(group.name, {})
        return {key: value for key, value in answer.items() if value is not None}

    async def _describe_refreshes(
        self,
        AutoScalingGroupName: str,
        **_: Any,
    ) -> dict[str, Any]:
        self._group(AutoScalingGroupName)
        return {"InstanceRefreshes": self._world.refreshes.get(AutoScalingGroupName, [])}

    async def _describe_activities(
        self,
        AutoScalingGroupName: str | None = None,
        MaxRecords: int = DEFAULT_ACTIVITIES,
        NextToken: str | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        if others:
            raise NotModelled(
                f"not modelled: the parameters {sorted(others)} of DescribeScalingActivities"
            )
        groups = list(self._world.groups.values())
        if AutoScalingGroupName is not None:
            groups = [self._group(AutoScalingGroupName)]
        items = [_described(group, activity) for group in groups for activity in group.activities]
        page, token = paged(items, self._world.page_size, MaxRecords, NextToken)
        return {"Activities": page, **_next(token)}

    async def _set_desired(
        self,
        AutoScalingGroupName: str,
        DesiredCapacity: int,
        HonorCooldown: bool = False,
    ) -> dict[str, Any]:
        if HonorCooldown:
            raise NotModelled("not modelled: the length of a cooldown")
        group = self._group(AutoScalingGroupName)
        group.check_desired(DesiredCapacity)
        group.want(DesiredCapacity, self._world.now())
        await self.reconcile(group)
        return {}

    async def _suspend(
        self, AutoScalingGroupName: str, ScalingProcesses: list[str] | None = None
    ) -> dict[str, Any]:
        group = self._group(AutoScalingGroupName)
        group.suspended |= set(ScalingProcesses or PROCESSES)
        return {}

    async def _resume(
        self, AutoScalingGroupName: str, ScalingProcesses: list[str] | None = None
    ) -> dict[str, Any]:
        group = self._group(AutoScalingGroupName)
        group.suspended -= set(ScalingProcesses or PROCESSES)
        await self.reconcile(group)
        return {}

    async def _set_health(
        self,
        InstanceId: str,
        HealthStatus: str,
        ShouldRespectGracePeriod: bool = True,
    ) -> dict[str, Any]:
        del ShouldRespectGracePeriod  # there is none
        self._member(InstanceId)[1].health = HealthStatus
        return {}

    async def _terminate(
        self,
        ShouldDecrementDesiredCapacity: bool,
        InstanceId: str | None = None,
        **others: Any,
    ) -> dict[str, Any]:
        if others or InstanceId is None:
            raise NotModelled("only one instance is terminated at a time")
        group, member = self._member(InstanceId)
        if member.state.startswith("Terminating"):
            # Do not decrement twice: the SDK repeats the request after a lost reply.
            activity = group.activity_of(InstanceId)
            assert activity is not None
            return {"Activity": _described(group, activity)}
        cause = OUT_OF_SERVICE.format("a user request")
        if "Terminate" in group.suspended:
            # Accepted without effect while the process is suspended.
            activity = group.note(f"Terminating EC2 instance: {member.id}", "InProgress")
            return {"Activity": _described(group, activity)}
        if ShouldDecrementDesiredCapacity and member.is_counted:
            group.check_decrement()
            group.desired -= 1
        activity = await self.end(group, member, cause)
        await self.reconcile(group)
        return {"Activity": _described(group, activity)}

    async def _enter_standby(
        self,
        AutoScalingGroupName: str,
        ShouldDecrementDesiredCapacity: bool,
        InstanceIds: list[str] | None = None,
    ) -> dict[str, Any]:
        group = self._group(AutoScalingGroupName)
        members = self._members(group, InstanceIds or [], SERVING)
        if ShouldDecrementDesiredCapacity:
            if group.desired - len(members) < group.minimum:
                raise validation_error(
                    f"AutoScalingGroup {group.name} has min-size={group.minimum},"
                    f" max-size={group.maximum}, and desired-size={group.desired}. To place into"
                    f" standby {len(members)} more instance, please update the AutoScalingGroup"
                    " sizes appropriately."
                )
            group.desired -= len(members)
        activities: list[Activity] = []
        for member in members:
            member.state = STANDBY
            activities.append(
                group.note(f"Moving EC2 instance to Standby: {member.id}", "InProgress")
            )
        await self.reconcile(group)
        return {"Activities": [_described(group, activity) for activity in activities]}

    async def _exit_standby(
        self,
        AutoScalingGroupName: str,
        InstanceIds: list[str] | None = None,
    ) -> dict[str, Any]:
        group = self._group(AutoScalingGroupName)
        members = self._members(group, InstanceIds or [], STANDBY)
        if group.desired + len(members) > group.maximum:
            raise validation_error(
                f"AutoScalingGroup {group.name} has min-size={group.minimum},"
                f" max-size={group.maximum}, and desired-size={group.desired}. To remove from"
                f" standby {len(members)} more instance, please update the AutoScalingGroup"
                " sizes appropriately."
            )
        group.desired += len(members)
        activities: list[Activity] = []
        for member in members:
            member.state = STARTING
            member.wait = Wait(group.delays.launch, self._world.now())
            activities.append(
                group.note(f"Moving EC2 instance out of Standby: {member.id}", "PreInService")
            )
        return {"Activities": [_described(group, activity) for activity in activities]}

    def _member(self, id: str) -> tuple[Group, Member]:
        found = self._world.find_member(id)
        if found is None:
            raise validation_error(
                f"Instance Id not found - No managed instance found for instance ID {id}"
            )
        return found

    def _members(self, group: Group, ids: list[str], state: str) -> list[Member]:
        for id in ids:
            if id not in group.members:
                raise validation_error(
                    f"The instance {id} is not part of Auto Scaling group {group.name}."
                )
            if group.members[id].state != state:
                raise validation_error(f"The instance {id} is not in {state}.")
        return [group.members[id] for id in ids]


def _next(token: str | None) -> dict[str, str]:
    return {} if token is None else {"NextToken": token}


def _policy(group: Group, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the group's launch template, as a group with several types shows it."""
    if not group.is_mixed:
        return {}
    template = {
        "LaunchTemplateSpecification": facts["LaunchTemplate"],
        "Overrides": [{"InstanceType": each} for each in group.types],
    }
    share = {"OnDemandPercentageAboveBaseCapacity": 0 if group.is_spot else 100}
    policy = {"LaunchTemplate": template, "InstancesDistribution": share}
    return {"LaunchTemplate": None, "MixedInstancesPolicy": policy}


def _listed(member: Member) -> dict[str, Any]:
    return {
        **member.facts,
        "InstanceId": member.id,
        "InstanceType": member.type,
        "AvailabilityZone": member.zone,
        "LifecycleState": member.state,
        "HealthStatus": member.health,
    }


def _described(group: Group, activity: Activity) -> dict[str, Any]:
    answer = {
        "ActivityId": activity.id,
        "AutoScalingGroupName": group.name,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.started,
        "EndTime": activity.ended,
        "StatusCode": activity.status,
        "StatusMessage": activity.message,
        "Progress": 100 if activity.ended else 50,
        "Details": activity.details,
    }
    return {key: value for key, value in answer.items() if value is not None}
