"""Suspends and resumes the instances of a group; `_standby` decides the steps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

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

# The steps that are requests, in the order in which they are sent.
_REQUESTS = (
    StandbyStep.ENTER_STANDBY,
    StandbyStep.STOP,
    StandbyStep.START,
    StandbyStep.EXIT_STANDBY,
)


class Suspensions:
    """Remembers the goal of each instance until it is reached.

    Args:
        clients: send the requests.
        name: of the group.
        writing: the lock for changes of the desired capacity.
    """

    def __init__(self, clients: Clients, name: str, writing: anyio.Lock) -> None:
        self._clients = clients
        self._name = name
        self._writing = writing
        self._goals: dict[str, SuspensionGoal] = {}
        # The error for each instance that EC2 refuses to stop: trying again would fail again.
        self._unstoppable: dict[str, ProviderError] = {}

    async def request(self, goal: SuspensionGoal, ids: Sequence[str]) -> Accepted:
        """Take the first step for each instance; later listings take the others.

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
            states = await self._ec2_states(group, ids)
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
            done, failed = await self._take({id: steps[id] for id in fitting})
        if len(ids) < len(asked):
            error = error or next(unstoppable[id] for id in asked if id in unstoppable)
        accepted = [id for id in fitting if id in done]
        self._goals.update(dict.fromkeys(accepted, goal))
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

    async def progress(self, group: GroupSnapshot) -> dict[str, StandbyStatus]:
        """Take the next steps, and return how a listing shows the instances concerned."""
        for id in [one for one in self._goals if one not in group.members]:
            del self._goals[id]
        for id in [one for one in self._unstoppable if one not in group.members]:
            del self._unstoppable[id]
        try:
            states = await self._ec2_states(group, self._goals)
        except ProviderError as error:
            # The other instances can still be listed.
            logger.warning("%s; the state of instances in standby is unknown", error)
            states = {}
        for id, goal in list(self._goals.items()):
            if is_reached(goal, group.members[id].lifecycle_state, states.get(id, "")):
                del self._goals[id]
        found = {
            id: standby_status(self._goals.get(id), member.lifecycle_state, states.get(id, ""))
            for id, member in group.members.items()
            if id in self._goals or member.lifecycle_state in STANDBY
        }
        steps = _steps(self._goals, group, states)
        # Only a request enters standby. An instance that is in service again was resumed.
        excluded = {StandbyStep.ENTER_STANDBY, StandbyStep.WAIT, StandbyStep.IMPOSSIBLE}
        due = {id: step for id, step in steps.items() if step not in excluded}
        if not due:
            return found
        # Leaving standby raises the desired capacity, so no other change may be under way.
        async with self._writing:
            _, refusal = await self._take(due)
        if refusal is not None:
            logger.warning("%s; the next listing continues with the remaining steps", refusal)
        return found

    async def _ec2_states(self, group: GroupSnapshot, ids: Collection[str]) -> dict[str, str]:
        """Ask EC2 for the states of the members among `ids`, and of all members in standby."""
        standby = {id for id, one in group.members.items() if one.lifecycle_state in STANDBY}
        wanted = standby | {id for id in ids if id in group.members}
        if not wanted:
            return {}
        found = await describe_instances(self._clients, wanted)
        return {id: ec2_state_of(found[id]) for id in wanted if id in found}

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
                        self._goals.update(dict.fromkeys(batch, SuspensionGoal.RESUMED))
                        self._unstoppable.update(dict.fromkeys(batch, error))
        return done, last

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
