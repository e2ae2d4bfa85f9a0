"""Effects that take time: each is carried out in a task of its own, and ends in an event.

One slow call delays nothing else. An instance may be recreated under its old id, and
then the preparation and the health checks of its predecessor must not be mistaken for
its own. So they are cancelled, and the connection is taken away, before anything is
begun with the successor.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from taskscaler.core import effects, events
from taskscaler.runtime.instance_checks import check_health, prepare
from taskscaler.runtime.provider_calls import ScalingCall, call_provider, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from fleeting.abc import InstanceGroup
    from taskscaler.core import Effect, Event, Stage
    from taskscaler.runtime.connections import Connections, SharedConnection

__all__ = ("BATCH", "EffectTasks")

logger = logging.getLogger("taskscaler")

# How many tasks are started before others have their turn. Ten thousand that start together
# would hold the event loop for a long time.
BATCH = 10


class EffectTasks:
    """The tasks that carry out effects.

    Args:
        groups: opened groups, by id.
        connections: those to the instances.
        post: takes the events.
    """

    def __init__(
        self,
        groups: Mapping[str, InstanceGroup],
        connections: Connections,
        post: Callable[[Event], object],
    ) -> None:
        self._groups = groups
        # The groups that take the steps that follow from a listing.
        self._reconciling: set[str] = set()
        self._connections = connections
        self._post = post
        # The preparation and the health checks of each instance.
        self._checks: defaultdict[tuple[str, str], set[anyio.CancelScope]] = defaultdict(set)

    def start(self, effect: Effect, tasks: TaskGroup) -> None:
        """Start to carry out an effect.

        The connections of instances that are removed, suspended or resumed are detached
        now, not when the task runs: it must not close a connection that is made later.
        """
        match effect:
            case effects.Prepare():
                self.cancel(effect.group, effect.id)
                tasks.start_soon(self._check, effect, self._new_scope(effect.group, effect.id))
            case effects.CheckHealth():
                tasks.start_soon(self._check, effect, self._new_scope(effect.group, effect.id))
            case effects.Decrease() | effects.Suspend() | effects.Resume():
                detached = [self._detach(effect.group, id) for id in effect.ids]
                tasks.start_soon(self._call, effect, [one for one in detached if one is not None])
            case effects.List() | effects.Increase() | effects.AskOutcome():
                tasks.start_soon(self._call, effect)
            case _:
                raise AssertionError(f"no task carries out {effect!r}")

    def cancel(self, group: str, id: str) -> None:
        """Cancel the preparation and the health checks of an instance."""
        for scope in self._checks.pop((group, id), ()):
            scope.cancel()

    def forget(self, group: str, id: str, tasks: TaskGroup) -> None:
        """Close the connection of an instance that is gone, and forget how it was reached."""
        shared = self._detach(group, id)
        self._connections.cache.forget(group, id)
        if shared is not None:
            tasks.start_soon(shared.close)

    def _detach(self, group: str, id: str) -> SharedConnection | None:
        self.cancel(group, id)
        return self._connections.detach(group, id)

    async def _call(self, effect: ScalingCall, detached: Sequence[SharedConnection] = ()) -> None:
        async with anyio.create_task_group() as closing:
            for number, shared in enumerate(detached, 1):
                closing.start_soon(shared.close)
                if not number % BATCH:
                    await anyio.lowlevel.checkpoint()
        event = await call_provider(self._groups[effect.group], effect)
        self._post(event)
        if isinstance(event, events.ListingArrived) and effect.group not in self._reconciling:
            # The core has the listing already, so a slow step delays no decision.
            self._reconciling.add(effect.group)
            try:
                await reconcile(self._groups[effect.group], event.listing, effect.timeout_seconds)
            finally:
                self._reconciling.discard(effect.group)

    async def _check(
        self, effect: effects.Prepare | effects.CheckHealth, scope: anyio.CancelScope
    ) -> None:
        group = self._groups[effect.group]
        with scope:
            if isinstance(effect, effects.Prepare):
                event = await prepare(
                    group, self._connections, effect, self._telling(effect, scope)
                )
            else:
                event = await check_health(group, self._connections, effect)
            # A plugin may have swallowed the cancellation, and then the event is about the
            # predecessor of an instance.
            if not scope.cancel_called:
                self._post(event)
        self._end(effect.group, effect.id, scope)

    def _telling(
        self, effect: effects.Prepare, scope: anyio.CancelScope
    ) -> Callable[[Stage, str], None]:
        """Return what posts and logs why an instance is not ready yet."""
        began, times = datetime.now(UTC), 0

        def tell(stage: Stage, reason: str) -> None:
            nonlocal times
            times += 1
            if scope.cancel_called:
                return
            self._post(events.InstanceDelayed(effect.group, effect.id, stage, reason))
            if not times & (times - 1):  # Once, twice, four times ...
                logger.info(
                    "instance %s of %s is not ready; attempt %d since %s, %s: %s",
                    effect.id,
                    effect.group,
                    times,
                    f"{began:%Y-%m-%d %H:%M:%SZ}",
                    stage.value,
                    reason,
                )

        return tell

    def _new_scope(self, group: str, id: str) -> anyio.CancelScope:
        """Return a scope that `cancel` knows before its task runs."""
        scope = anyio.CancelScope()
        self._checks[group, id].add(scope)
        return scope

    def _end(self, group: str, id: str, scope: anyio.CancelScope) -> None:
        scopes = self._checks.get((group, id), set())
        scopes.discard(scope)
        if not scopes:
            self._checks.pop((group, id), None)
