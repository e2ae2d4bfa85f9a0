"""Takes the steps of `_standby` for the instances of one group."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleeting.errors import ProviderError, QuotaExceeded
from fleeting.types import Accepted
from fleeting_plugin_aws._describe import describe_group, describe_machines, state_of
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._findings import group_command
from fleeting_plugin_aws._standby import STANDBY, Step, Wish, is_fulfilled, next_step, sleeping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import anyio

    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._standby import Sleeping
    from fleeting_plugin_aws._states import Snapshot

__all__ = ("Sleepers",)

logger = logging.getLogger("fleeting")

# AWS lets so many enter or leave standby with one request.
BATCH = 19


class Sleepers:
    """Knows what is wanted of which instance, until it is so.

    Args:
        clients: how to ask.
        name: of the group.
        writing: held by whoever writes the desired capacity.
    """

    def __init__(self, clients: Clients, name: str, writing: anyio.Lock) -> None:
        self._clients = clients
        self._name = name
        self._writing = writing
        self._wishes: dict[str, Wish] = {}
        # Those that EC2 would not stop, and why: to try again would be for nothing.
        self._sleepless: dict[str, ProviderError] = {}

    async def request(self, wish: Wish, ids: Sequence[str]) -> Accepted:
        """Take the first step for each instance; the listings take the others.

        Raises:
            ProviderError: nothing was accepted.
        """
        asked = tuple(dict.fromkeys(ids))
        if not asked:
            return Accepted(0)
        sleepless = self._sleepless if wish is Wish.SLEEP else {}
        ids = [id for id in asked if id not in sleepless]
        if not ids:
            raise sleepless[asked[0]].with_traceback(None)
        async with self._writing:
            group = await describe_group(self._clients, self._name)
            machines = await self._machines(group, ids)
            steps = self._steps({id: wish for id in ids if id in group.members}, group, machines)
            able = [id for id in ids if steps.get(id, Step.IMPOSSIBLE) is not Step.IMPOSSIBLE]
            fitting = _within_limits(group, {id: steps[id] for id in able})
            error: ProviderError | None = None
            if len(fitting) < len(able):
                error = self._no_room(group, wish)
            if len(able) < len(ids):
                missing = ", ".join(id for id in ids if id not in able)
                error = ProviderError(
                    f"{missing}: not in a state from which it could {wish.value}; it is tried again"
                )
            done, failed = await self._take({id: steps[id] for id in fitting})
        if len(ids) < len(asked):
            error = error or next(sleepless[id] for id in asked if id in sleepless)
        accepted = [id for id in fitting if id in done]
        self._wishes.update(dict.fromkeys(accepted, wish))
        if failed is not None and not accepted:
            raise failed
        return Accepted(len(accepted), tuple(accepted), failed or error)

    def _no_room(self, group: Snapshot, wish: Wish) -> ProviderError:
        limit, number = "min_size", group.minimum
        if wish is Wish.WAKE:
            limit, number = "max_size", group.maximum
        option = f"--{limit.replace('_', '-')}"
        command = group_command(
            self._name, self._clients.region, "update-auto-scaling-group", option, "NUMBER"
        )
        return QuotaExceeded(
            f"group {self._name} has a {limit} of {number}, so not all of these instances can "
            f"{wish.value}; change it: {command}"
        )

    async def progress(self, group: Snapshot) -> dict[str, Sleeping]:
        """Take the next steps, and return what a listing says of the instances concerned."""
        for id in [one for one in self._wishes if one not in group.members]:
            del self._wishes[id]
        for id in [one for one in self._sleepless if one not in group.members]:
            del self._sleepless[id]
        try:
            machines = await self._machines(group, self._wishes)
        except ProviderError as error:
            # The others are listed all the same.
            logger.warning("%s; what instances in standby do is not known", error)
            machines = {}
        states = {id: state_of(machine) for id, machine in machines.items()}
        for id, wish in list(self._wishes.items()):
            if is_fulfilled(wish, group.members[id].lifecycle, states.get(id, "")):
                del self._wishes[id]
        found = {
            id: sleeping(self._wishes.get(id), group.members[id].lifecycle, states.get(id, ""))
            for id, member in group.members.items()
            if id in self._wishes or member.lifecycle in STANDBY
        }
        steps = self._steps(self._wishes, group, machines)
        # Only a request may begin anew: one that was in service again is meant to be.
        undone = {Step.ENTER_STANDBY, Step.WAIT, Step.IMPOSSIBLE}
        due = {id: step for id, step in steps.items() if step not in undone}
        if not due:
            return found
        # To leave standby raises the desired capacity, which nobody may be about to set.
        async with self._writing:
            _, refusal = await self._take(due)
        if refusal is not None:
            logger.warning("%s; the next listing goes on with what can be done", refusal)
        return found

    def _steps(
        self,
        wishes: Mapping[str, Wish],
        group: Snapshot,
        machines: Mapping[str, Mapping[str, object]],
    ) -> dict[str, Step]:
        return {
            id: next_step(wish, group.members[id].lifecycle, state_of(machines.get(id)))
            for id, wish in wishes.items()
        }

    async def _machines(
        self, group: Snapshot, ids: Iterator[str] | Sequence[str] | Mapping[str, Wish]
    ) -> dict[str, Mapping[str, object]]:
        """Ask EC2 about those of a group that it alone knows enough about."""
        asleep = {id for id, one in group.members.items() if one.lifecycle in STANDBY}
        wanted = asleep | {id for id in ids if id in group.members}
        if not wanted:
            return {}
        found = await describe_machines(self._clients, wanted)
        return {id: found[id] for id in wanted if id in found}

    async def _take(self, steps: Mapping[str, Step]) -> tuple[set[str], ProviderError | None]:
        """Take a step for each instance; return for which it was, and the last refusal."""
        done = {id for id, step in steps.items() if step is Step.WAIT}
        last: ProviderError | None = None
        for step in (Step.ENTER_STANDBY, Step.STOP, Step.START, Step.EXIT_STANDBY):
            ids = [id for id, one in steps.items() if one is step]
            batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
            for batch in batches:
                try:
                    await self._send(step, batch)
                    done.update(batch)
                except ProviderError as error:
                    last = error
                    if isinstance(error, Refused) and len(batch) > 1:
                        # One that cannot, such as a spot instance, fails the request of all.
                        batches += [[id] for id in batch]
                    elif step is Step.STOP and not error.retryable:
                        # It cannot be stopped at all, so it is to serve again.
                        self._wishes.update(dict.fromkeys(batch, Wish.WAKE))
                        self._sleepless.update(dict.fromkeys(batch, error))
        return done, last

    async def _send(self, step: Step, ids: Sequence[str]) -> None:
        change, group = self._clients.change, self._name
        match step:
            case Step.ENTER_STANDBY:
                await change(
                    "autoscaling",
                    "EnterStandby",
                    AutoScalingGroupName=group,
                    InstanceIds=ids,
                    ShouldDecrementDesiredCapacity=True,
                )
            case Step.EXIT_STANDBY:
                await change(
                    "autoscaling", "ExitStandby", AutoScalingGroupName=group, InstanceIds=ids
                )
            case Step.STOP:
                await change("ec2", "StopInstances", InstanceIds=ids)
            case Step.START:
                await change("ec2", "StartInstances", InstanceIds=ids)
            case _:
                pass


def _within_limits(group: Snapshot, steps: Mapping[str, Step]) -> list[str]:
    """Return those for which a step is within the group's limits."""
    room = {
        Step.ENTER_STANDBY: max(0, group.desired - group.minimum),
        Step.START: max(0, group.maximum - group.desired),
        Step.EXIT_STANDBY: max(0, group.maximum - group.desired),
    }
    fitting: list[str] = []
    for id, step in steps.items():
        if room.get(step, 1) > 0:
            fitting.append(id)
            if step in room:
                room[step] -= 1
    return fitting
