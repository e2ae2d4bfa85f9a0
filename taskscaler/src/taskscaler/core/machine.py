"""The state machine: events in, effects out, and nothing else.

    effects = state.apply(event, now)

The table of handlers says which rule answers which event. Rules check first and
change afterwards, so an impossible event raises `IllegalEvent` and leaves the state
unchanged. Any other exception is a bug, and may leave the state half changed; then
the machine refuses all further events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core import views
from taskscaler.core.model import events
from taskscaler.core.model.agenda import CHANGED
from taskscaler.core.model.effects import Outbox, WakeAt
from taskscaler.core.model.fleet import Fleet
from taskscaler.core.model.policy import in_force
from taskscaler.core.rules import (
    acquiring,
    deciding,
    growth,
    health,
    interruption,
    listings,
    operating,
    placing,
    preparing,
    releasing,
    removal,
    reserving,
    restoring,
    suspension,
    waking,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fleeting.types import GroupInfo
    from taskscaler.core.model.decisions import Decision
    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Event, Now
    from taskscaler.core.model.explain import Standing
    from taskscaler.core.model.settings import Policy, Settings
    from taskscaler.core.views import InstanceView, TaskView

__all__ = ("ScalerState",)

HANDLERS: Mapping[type[Event], Callable[..., None]] = {
    events.TaskReserved: reserving.reserved,
    events.TaskUnreserved: reserving.unreserved,
    events.TaskAsked: acquiring.asked,
    events.TaskCancelled: acquiring.cancelled,
    events.TaskReleased: releasing.released,
    events.TaskSuspended: suspension.suspended,
    events.TaskResumed: suspension.resumed,
    events.SuspendedTaskDropped: suspension.dropped,
    events.ListingArrived: listings.listed,
    events.ListingFailed: listings.not_listed,
    events.IncreaseSettled: growth.increased,
    events.OutcomeTold: growth.told,
    events.DecreaseSettled: removal.decreased,
    events.SuspendSettled: suspension.suspend_settled,
    events.ResumeSettled: suspension.resume_settled,
    events.InstancePrepared: preparing.prepared,
    events.InstanceDelayed: preparing.delayed,
    events.PreparationFailed: preparing.unprepared,
    events.InstanceBroke: interruption.broke,
    events.InterruptionAnnounced: interruption.interrupted,
    events.HealthPassed: health.passed,
    events.HealthFailed: health.failed,
    events.TimePassed: deciding.time_passed,
    events.SettingsChanged: operating.settings_changed,
    events.DrainAsked: operating.drain,
    events.ShutdownAsked: operating.shut_down,
    events.RecordsRestored: restoring.restored,
}


class ScalerState:
    """Decides for one scaler. Everything that it knows is in here.

    Args:
        groups: the groups to drive, in order of preference.
        settings: the operator's.
        name: a prefix for operation names; no earlier process may have used it.
        portion: how much of a listing is digested at once; see `PORTION` and `CHANGED` in
            `rules/listings.py`.

    Raises:
        IllegalEvent: two groups have the same id, or none is given.
    """

    def __init__(
        self,
        groups: Sequence[GroupInfo],
        settings: Settings,
        *,
        name: str,
        portion: int = listings.PORTION,
    ) -> None:
        self._fleet = Fleet(groups, settings, name, portion)
        self._out = Outbox()
        self._wake_at = float("inf")
        self._failure = ""

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Apply an event, and return what is to be done.

        Raises:
            IllegalEvent: the event is impossible; the state is unchanged.
            RuntimeError: a bug stopped the scaler at an earlier event. The state cannot be
                trusted any more; the process has to restart from its store.
        """
        if self._failure:
            raise RuntimeError(self._failure)
        fleet = self._fleet
        try:
            if fleet.scheduled and not fleet.since <= now.wall < fleet.until:
                self._switch_and_handle(event, now)
            else:
                HANDLERS[type(event)](fleet, event, now, self._out)
            fleet.touched = True
            self._wake(event, now)
        except IllegalEvent:
            raise
        except BaseException as error:
            self._failure = (
                f"the scaler stopped because of a bug while it handled {type(event).__name__} "
                f"({type(error).__name__}: {error}); restart it, and it continues from its store"
            )
            raise
        return self._out.finish()

    def _switch_and_handle(self, event: Event, now: Now) -> None:
        """Find out which policy is in force, and handle the event under it."""
        fleet = self._fleet
        before = fleet.in_force
        fleet.follow(in_force(fleet.settings, now.wall))
        switched = fleet.policy != before.policy
        try:
            HANDLERS[type(event)](fleet, event, now, self._out)
        except IllegalEvent:
            fleet.follow(before)
            raise
        if switched:
            fleet.agenda.news |= CHANGED
            # Slots that were promised to reservations may be free for all tasks now.
            placing.place(fleet, now, self._out)

    def _wake(self, event: Event, now: Now) -> None:
        """Ask for the next decision, unless an earlier one is requested already."""
        fleet = self._fleet
        if fleet.agenda.news:
            fleet.observe(now)
        if type(event) is events.TimePassed:
            self._wake_at = waking.after_decision(fleet, now)
            self._out.add(WakeAt(self._wake_at))
        elif fleet.agenda.news:
            at = waking.after_event(fleet, now)
            if at < self._wake_at:
                self._wake_at = at
                self._out.add(WakeAt(at))
        fleet.agenda.news = 0

    # For drivers.

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._fleet.settings

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._fleet.policy

    @property
    def refusing(self) -> str:
        """Why no new tasks are accepted; empty as long as they are."""
        return self._fleet.refusing

    @property
    def blocked(self) -> tuple[Decision, ...]:
        """The decisions that the newest pass could not carry out fully, by group."""
        return self._fleet.blocked

    @property
    def digesting(self) -> bool:
        """Whether a listing is only partly processed."""
        return any(group.listing.digestion for group in self._fleet.groups)

    @property
    def expected(self) -> int:
        """How many instances exist, or may come, that no listing has shown."""
        return sum(group.creations.unseen for group in self._fleet.groups)

    @property
    def drained(self) -> bool:
        """Whether no task waits, is promised a slot, has one or is being resumed."""
        return self._fleet.drained

    @property
    def finished(self) -> bool:
        """Whether the scaler shuts down and no instance is left that will be removed."""
        fleet = self._fleet
        return fleet.closing and all(removal.cleared(fleet, group) for group in fleet.groups)

    def demand(self) -> Demand:
        """Return the inputs of a decision as they are now."""
        return self._fleet.demand()

    def standing(self) -> Standing:
        """Return a summary for humans."""
        return self._fleet.standing()

    def holds(self, key: str) -> bool:
        """Return whether a task holds a slot that was not lost with its instance."""
        return self._fleet.tasks.holds(key)

    def task(self, key: str) -> TaskView | None:
        """Return the state of a task; None if its key is not in use."""
        return views.task(self._fleet.tasks, key)

    def place(self, key: str) -> int | None:
        """Return the place of a task in the queue, 1 for the next; None if it does not wait."""
        return self._fleet.tasks.place(key)

    def waiting(self) -> Iterator[str]:
        """Yield the keys of the waiting tasks, the next to be served first."""
        return iter(self._fleet.tasks.waiting)

    def held(self) -> Iterator[TaskView]:
        """Yield the tasks that hold a slot, or have not released one that was lost."""
        return (views.held(*one) for one in self._fleet.tasks.held.items())

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Yield the key, the group and the instance of the same tasks, with less work."""
        held = self._fleet.tasks.held.items()
        return ((key, group.name, one.id) for key, (group, one) in held)

    def suspended(self) -> Iterator[TaskView]:
        """Yield the suspended tasks, the longest suspended first."""
        tasks = self._fleet.tasks
        return (views.kept(tasks, *one) for one in tasks.suspended.items())

    def instances(self) -> Iterator[InstanceView]:
        """Yield all instances, foreign ones too, by group and in order of age."""
        return (views.instance(one) for group in self._fleet.groups for one in group.members)

    def instance(self, group: str, id: str) -> InstanceView | None:
        """Return one instance, or None.

        Raises:
            IllegalEvent: no group has that id.
        """
        one = self._fleet.group(group).members.get(id)
        return None if one is None else views.instance(one)
