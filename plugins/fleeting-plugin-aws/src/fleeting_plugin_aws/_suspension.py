"""Suspends and resumes the instances of a group; `_standby` decides the steps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.errors import ProviderError, QuotaExceeded
from fleeting.types import Accepted
from fleeting_plugin_aws._commands import update_group_command
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._instances import ec2_state_of
from fleeting_plugin_aws._requests import describe_group, describe_instances
from fleeting_plugin_aws._standby import (
    STANDBY,
    StandbyStep,
    SuspensionGoal,
    is_reached,
    next_step,
    standby_status,
    within_limits,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import anyio

    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._standby import StandbyStatus
    from fleeting_plugin_aws._states import GroupSnapshot

__all__ = ("Suspensions",)

logger = logging.getLogger("fleeting")

# AWS accepts this many instances in one request to enter or leave standby.
BATCH = 19

# The tag of an instance that is on its way into or out of suspension.
TAG = "fleeting:goal"

# The steps after which AWS reaches a goal by itself.
_LAST = frozenset({StandbyStep.STOP, StandbyStep.EXIT_STANDBY})

# The steps that are requests, in the order in which they are sent.
_REQUESTS = (
    StandbyStep.ENTER_STANDBY,
    StandbyStep.STOP,
    StandbyStep.START,
    StandbyStep.EXIT_STANDBY,
)


class _Seen(NamedTuple):
    """The last answer of EC2 about an instance.

    Attributes:
        state: EC2's state.
        goal: the goal in its tag; None if it has none.
    """

    state: str
    goal: SuspensionGoal | None


def _seen(description: Mapping[str, Any]) -> _Seen:
    values = [one["Value"] for one in description.get("Tags", ()) if one["Key"] == TAG]
    goals = [goal for goal in SuspensionGoal if goal.value in values]
    return _Seen(ec2_state_of(description), goals[0] if goals else None)


class Suspensions:
    """Takes instances to their goals, which tags of the instances keep.

    A goal is tagged before the first step and removed with the last one. So another process
    can go on, and an instance that someone else has put in standby has no goal.

    Args:
        clients: send the requests.
        name: of the group.
        writing: the lock for changes of the desired capacity.
    """

    def __init__(self, clients: Clients, name: str, writing: anyio.Lock) -> None:
        self._clients = clients
        self._name = name
        self._writing = writing
        # The goals that this process was asked for. EC2 may show a tag late.
        self._goals: dict[str, SuspensionGoal] = {}
        self._seen: Mapping[str, _Seen] = {}
        # The error for each instance that EC2 refuses to stop: trying again would fail again.
        self._unstoppable: dict[str, ProviderError] = {}

    async def request(self, goal: SuspensionGoal, ids: Sequence[str]) -> Accepted:
        """Take the first step for each instance; `proceed` takes the others.

        Raises:
            ProviderError: nothing was accepted.
        """
        asked = tuple(dict.fromkeys(ids))
        if not asked:
            return Accepted(0)
        unstoppable = self._unstoppable if goal is SuspensionGoal.SUSPENDED else {}
        ids = [id for id in asked if id not in unstoppable]
        if not ids:
            raise unstoppable[asked[0]].with_traceback(None)
        async with self._writing:
            group = await describe_group(self._clients, self._name)
            seen = await self._ask(group, ids)
            states = {id: one.state for id, one in seen.items()}
            steps = _steps({id: goal for id in ids if id in group.members}, group, states)
            impossible = StandbyStep.IMPOSSIBLE
            able = [id for id in ids if steps.get(id, impossible) is not impossible]
            fitting = within_limits(group, {id: steps[id] for id in able})
            error: ProviderError | None = None
            if len(fitting) < len(able):
                error = self._limit_error(group, goal)
            if len(able) < len(ids):
                missing = ", ".join(id for id in ids if id not in able)
                error = ProviderError(
                    f"cannot {goal.value} {missing}: not a member of group {self._name}, or not in "
                    "a state that allows it; it will be retried"
                )
            open_ends = [
                id
                for id in fitting
                if not is_reached(goal, group.members[id].lifecycle_state, states.get(id, ""))
            ]
            await self._tag(open_ends, goal)
            done, failed = await self._take({id: steps[id] for id in fitting})
            await self._untag([id for id in open_ends if id not in done])
        if len(ids) < len(asked):
            error = error or next(unstoppable[id] for id in asked if id in unstoppable)
        accepted = [id for id in fitting if id in done]
        self._goals.update((id, goal) for id in accepted if id in open_ends)
        if failed is not None and not accepted:
            raise failed
        return Accepted(len(accepted), tuple(accepted), failed or error)

    def _limit_error(self, group: GroupSnapshot, goal: SuspensionGoal) -> ProviderError:
        limit, number = "min_size", group.minimum
        if goal is SuspensionGoal.RESUMED:
            limit, number = "max_size", group.maximum
        option = f"--{limit.replace('_', '-')}"
        command = update_group_command(self._name, self._clients.region, option, "NUMBER")
        return QuotaExceeded(
            f"group {self._name} has a {limit} of {number}, which does not allow the plugin to "
            f"{goal.value} all of these instances; change it: {command}"
        )

    async def look(self, group: GroupSnapshot) -> dict[str, StandbyStatus]:
        """Return how a listing shows the instances that are in standby or have a goal."""
        concerned = {id for id in self._goals if id in group.members}
        try:
            self._seen = await self._ask(group, concerned)
        except ProviderError as error:
            # The other instances can still be listed.
            logger.warning("%s; the state of instances in standby is unknown", error)
            self._seen = {}
        return {
            id: standby_status(self._goal(id), member.lifecycle_state, self._state(id))
            for id, member in group.members.items()
            if id in concerned or member.lifecycle_state in STANDBY
        }

    async def proceed(self, group: GroupSnapshot) -> None:
        """Take the next steps of the instances that `look` has seen.

        Raises:
            ProviderError: AWS refused at least one step.
        """
        for id in [one for one in self._goals if one not in group.members]:
            del self._goals[id]
        for id in [one for one in self._unstoppable if one not in group.members]:
            del self._unstoppable[id]
        goals = {id: goal for id in group.members if (goal := self._goal(id)) is not None}
        steps = _steps(goals, group, {id: self._state(id) for id in goals})
        reached = [
            id
            for id, goal in goals.items()
            if is_reached(goal, group.members[id].lifecycle_state, self._state(id))
        ]
        # Only a request enters standby. An instance that is in service again was resumed.
        excluded = {StandbyStep.ENTER_STANDBY, StandbyStep.WAIT, StandbyStep.IMPOSSIBLE}
        due = {id: step for id, step in steps.items() if step not in excluded}
        refusal: ProviderError | None = None
        done: set[str] = set()
        if due:
            # Leaving standby raises the desired capacity, so no other change may be under way.
            async with self._writing:
                done, refusal = await self._take(due)
        last = {id for id in done if due[id] in _LAST}
        for id in reached:
            self._goals.pop(id, None)
        await self._untag(
            [*last, *(id for id in reached if id in self._seen and self._seen[id].goal)]
        )
        if refusal is not None:
            raise refusal

    def _goal(self, id: str) -> SuspensionGoal | None:
        """Return the goal of an instance: of this process, or else of an earlier one."""
        if id in self._goals:
            return self._goals[id]
        return self._seen[id].goal if id in self._seen else None

    def _state(self, id: str) -> str:
        return self._seen[id].state if id in self._seen else ""

    async def _ask(self, group: GroupSnapshot, ids: Collection[str]) -> dict[str, _Seen]:
        """Ask EC2 about the members among `ids`, and about all members in standby."""
        standby = {id for id, one in group.members.items() if one.lifecycle_state in STANDBY}
        wanted = standby | {id for id in ids if id in group.members}
        if not wanted:
            return {}
        found = await describe_instances(self._clients, wanted)
        return {id: _seen(found[id]) for id in wanted if id in found}

    async def _tag(self, ids: Sequence[str], goal: SuspensionGoal) -> None:
        if ids:
            tag = {"Key": TAG, "Value": goal.value}
            await self._clients.change("ec2", "CreateTags", Resources=list(ids), Tags=[tag])

    async def _untag(self, ids: Sequence[str]) -> None:
        """Remove the goals of instances; one that stays does harm only if it is in standby."""
        if not ids:
            return
        try:
            await self._clients.change(
                "ec2", "DeleteTags", Resources=list(ids), Tags=[{"Key": TAG}]
            )
        except ProviderError as error:
            logger.warning("%s; remove the tag %s of %s by hand", error, TAG, ", ".join(ids))

    async def _take(
        self, steps: Mapping[str, StandbyStep]
    ) -> tuple[set[str], ProviderError | None]:
        """Take a step for each instance; return the ids that succeeded, and the last refusal."""
        done = {id for id, step in steps.items() if step is StandbyStep.WAIT}
        last: ProviderError | None = None
        for step in _REQUESTS:
            ids = [id for id, one in steps.items() if one is step]
            batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
            for batch in batches:
                try:
                    await self._send(step, batch)
                    done.update(batch)
                except ProviderError as error:
                    last = error
                    if isinstance(error, Refused) and len(batch) > 1:
                        # A single instance, such as a spot instance, fails the whole request.
                        batches += [[id] for id in batch]
                    elif step is StandbyStep.STOP and not error.retryable:
                        # It cannot be stopped at all, so it returns to service.
                        await self._give_back(batch)
                        self._unstoppable.update(dict.fromkeys(batch, error))
        return done, last

    async def _give_back(self, ids: Sequence[str]) -> None:
        """Let instances return to service."""
        self._goals.update(dict.fromkeys(ids, SuspensionGoal.RESUMED))
        try:
            await self._tag(ids, SuspensionGoal.RESUMED)
        except ProviderError as error:
            logger.warning("%s; only this process knows that they return to service", error)

    async def _send(self, step: StandbyStep, ids: Sequence[str]) -> None:
        change, group = self._clients.change, self._name
        match step:
            case StandbyStep.ENTER_STANDBY:
                await change(
                    "autoscaling",
                    "EnterStandby",
                    AutoScalingGroupName=group,
                    InstanceIds=ids,
                    ShouldDecrementDesiredCapacity=True,
                )
            case StandbyStep.EXIT_STANDBY:
                await change(
                    "autoscaling", "ExitStandby", AutoScalingGroupName=group, InstanceIds=ids
                )
            case StandbyStep.STOP:
                await change("ec2", "StopInstances", InstanceIds=ids)
            case StandbyStep.START:
                await change("ec2", "StartInstances", InstanceIds=ids)
            case _:
                pass


def _steps(
    goals: Mapping[str, SuspensionGoal], group: GroupSnapshot, states: Mapping[str, str]
) -> dict[str, StandbyStep]:
    return {
        id: next_step(goal, group.members[id].lifecycle_state, states.get(id, ""))
        for id, goal in goals.items()
    }
