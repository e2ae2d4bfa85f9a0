"""One group: its parts, and the verbs that concern several of them.

Each part is the only code that writes its fields. The parts never call each other;
where a change concerns several of them, the verb is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.types import Capability, State
from taskscaler.core.model.checks import Checks
from taskscaler.core.model.creations import Creations
from taskscaler.core.model.effects import CheckHealth, Prepare
from taskscaler.core.model.indexes import IdleQueue, SlotIndex
from taskscaler.core.model.lifecycle import COMING, SERVING, Phase, Trigger
from taskscaler.core.model.listing import ListingSchedule
from taskscaler.core.model.members import Members, Ownership
from taskscaler.core.model.obstacles import Obstacles, Stage
from taskscaler.core.model.requests import Requests, SuspensionRequests
from taskscaler.core.model.settings import Placement

if TYPE_CHECKING:
    from fleeting.types import GroupInfo
    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.instance import Departure, Suspension, TrackedInstance
    from taskscaler.core.model.settings import Settings

__all__ = ("Group",)


class Group:
    """The core's view of one group.

    Attributes:
        name: its id.
        max_size: how many instances it can have; None if it knows no limit.
        can_suspend: whether it can suspend instances.
        members: its instances, and their phases.
        ownership: which instances are ours.
        listing: when to list it.
        creations: requests for instances, and pauses after failures.
        slots: who has which slot, and which instance serves the next task.
        idle: ready instances without tasks, by age.
        checks: health checks.
        obstacles: what keeps instances from getting ready, or from staying healthy.
        removals: requests to remove instances.
        suspensions: instances that keep suspended tasks.
        endangered: instances that the cloud will soon take away, by id.
        unclear: instances of which the cloud does not say clearly what they do, by id.
        moving: instances whose tasks end before a preferred group serves in their place, by
            id. Free slots of as many are kept there.
    """

    def __init__(self, info: GroupInfo, settings: Settings, agenda: Agenda) -> None:
        self.name = info.id
        self.max_size = info.max_size
        self.can_suspend = Capability.SUSPEND in info.capabilities
        self.members = Members(info.id, settings, agenda)
        self.ownership = Ownership(info.id, temporary=info.temporary)
        self.listing = ListingSchedule(agenda)
        self.creations = Creations(info.id, agenda)
        self.slots = SlotIndex(
            settings.capacity_per_instance, agenda, spread=settings.placement is Placement.SPREAD
        )
        self.idle = IdleQueue(self.members)
        self.checks = Checks(self.members, agenda)
        self.obstacles = Obstacles(info.id)
        self.removals = Requests(agenda)
        self.suspensions = SuspensionRequests(agenda)
        self.endangered: dict[str, TrackedInstance] = {}
        self.unclear: dict[str, TrackedInstance] = {}
        self.moving: dict[str, TrackedInstance] = {}
        # An instance in one of these phases is part of the requests until it leaves the phase.
        self._requests = {
            Phase.REMOVING: self.removals,
            Phase.SUSPENDING: self.suspensions.stops,
            Phase.RESUMING: self.suspensions.starts,
        }

    # How much there is.

    @property
    def size(self) -> int:
        """Return how many instances count against the limits."""
        return len(self.members) + self.creations.possible + self.ownership.undecided

    def limit(self, settings: Settings) -> int | None:
        """Return the most instances it may have; None without a limit."""
        limits = (self.max_size, settings.group_limits.get(self.name))
        return min((one for one in limits if one is not None), default=None)

    @property
    def coming(self) -> int:
        """Return how many instances are not ready yet but will be."""
        return self.creations.unseen + sum(self.members.counts[phase] for phase in COMING)

    @property
    def unavailable(self) -> int:
        """Return the slots on serving instances that are free and that no task will get."""
        suspended = 0
        if kept := self.suspensions.kept:
            suspended = sum(len(one.suspended) for one in kept.values() if one.phase in SERVING)
        taken = self.slots.acquired + self.slots.free + self.checks.sick_slots + suspended
        # These may get tasks again, like those of an instance that failed a check.
        unclear = sum(
            one.open_slots
            for one in self.unclear.values()
            if one.phase is Phase.READY and not one.health.failures
        )
        return self.members.slots - taken - unclear

    @property
    def endangered_slots(self) -> int:
        """Return the slots in use on instances that the cloud will soon take away."""
        return sum(len(one.tasks) for one in self.endangered.values()) if self.endangered else 0

    @property
    def moving_slots(self) -> int:
        """Return the slots in use that preferred groups keep free slots for."""
        return sum(len(one.tasks) for one in self.moving.values()) if self.moving else 0

    @property
    def expecting(self) -> bool:
        """Return whether a listing may soon show something new."""
        return bool(
            self.creations.unseen
            or self.members.creating
            or self.endangered
            or self.listing.missing
            or self.obstacles.delays
            or any(len(requests) for requests in self._requests.values())
        )

    def list_after(self, settings: Settings) -> float:
        """Return the pause between two listings, in seconds: short while one may show news."""
        long, short = settings.update_interval, settings.update_interval_when_expecting
        return (short if self.expecting else long).total_seconds()

    def is_ending(self, instance: TrackedInstance) -> bool:
        """Return whether the cloud has confirmed that it ends an instance."""
        removal = self.removals.get(instance.id)
        return instance.state is State.DELETING or (removal is not None and removal.accepted)

    @property
    def calling(self) -> bool:
        """Return whether an answer about single instances is awaited."""
        return any(requests.calling for requests in self._requests.values())

    @property
    def trouble(self) -> str:
        """Return the last failure without a later success, or an empty string."""
        return self.listing.backoff.reason or self.checks.held_back or self.creations.trouble

    # Phases.

    def step(self, instance: TrackedInstance, trigger: Trigger, now: Now) -> None:
        """Move an instance to its next phase.

        A phase that waits for the provider adds the instance to the next request.
        """
        was = instance.phase
        self.idle.open(instance)
        self.members.step(instance, trigger)
        phase = instance.phase
        if was is phase:
            return
        self.slots.update(instance)
        self.moving.pop(instance.id, None)
        if was is Phase.PREPARING:
            self.obstacles.leave(instance.id)
        if was in SERVING and phase not in SERVING:
            self.checks.leave(instance)
            self.obstacles.leave(instance.id)
        if was in self._requests:
            self._requests[was].discard(instance)
        if phase in self._requests or phase is Phase.GONE:
            self.endangered.pop(instance.id, None)
        if phase in self._requests:
            at = now.monotonic
            if phase is Phase.SUSPENDING:
                at = self.suspensions.may_stop_at(instance, at)
            self._requests[phase].add(instance, at)
        if phase is Phase.GONE:
            self.suspensions.forget(instance)
            self.unclear.pop(instance.id, None)

    def dismiss(self, instance: TrackedInstance, departure: Departure, now: Now) -> None:
        """Record why an instance must go, and offer it to no further task."""
        instance.departure = departure
        self.step(instance, Trigger.DISMISSED, now)

    def move(self, instance: TrackedInstance) -> None:
        """Keep free slots in a preferred group while a dismissed instance drains."""
        self.moving[instance.id] = instance

    def prepare(self, instance: TrackedInstance, settings: Settings, now: Now, out: Outbox) -> None:
        """An instance runs: find out whether it is ready.

        The operator's command is for new instances. One that has been ready before has
        passed it already, so a connection is proof enough.
        """
        self.step(instance, Trigger.RUNS, now)
        self.prepare_again(instance, settings, 0.0, out)

    def prepare_again(
        self, instance: TrackedInstance, settings: Settings, pause_seconds: float, out: Outbox
    ) -> None:
        """Find out after a pause whether an instance is ready."""
        command = "" if instance.ready_at else settings.instance_ready_command
        timeout_seconds = settings.instance_ready_timeout.total_seconds()
        # Less than the whole time, or the instance would be blamed for a provider that hangs.
        provider_seconds = min(settings.operation_timeout.total_seconds(), timeout_seconds / 2)
        out.add(
            Prepare(
                self.name, instance.id, command, timeout_seconds, provider_seconds, pause_seconds
            )
        )

    def serve(self, instance: TrackedInstance, now: Now, out: Outbox) -> None:
        """An instance was prepared: it serves from now on."""
        self.step(instance, Trigger.RETURNED if instance.departure else Trigger.PREPARED, now)
        self.checks.prove(instance, now.monotonic)
        instance.idle_since = now.monotonic
        if instance.ready_at is None:
            # An old instance that is ready again says nothing about new ones.
            self.creations.succeeded(now.monotonic)
            self.obstacles.overcome()
            instance.ready_at = now.wall
            out.put(instance.record)

    def serve_sick(self, instance: TrackedInstance, reason: str, now: Now) -> None:
        """An instance that was ready before does not answer: it serves when it passes a check."""
        self.step(instance, Trigger.PREPARED, now)
        self.checks.begin(instance)
        self.checks.end(instance, now.monotonic)
        self.check_failed(instance, reason, now)

    # Slots.

    def acquire(self, instance: TrackedInstance, key: str) -> None:
        """Give a slot to a task."""
        if self.idle.closed:
            self.idle.open(instance)
        self.slots.acquire(instance, key)

    def release(self, instance: TrackedInstance, key: str, now: float, *, proved: bool) -> None:
        """Take the slot back from a task that ended; `proved` as in `TaskReleased`."""
        if key not in instance.unconfirmed:
            instance.idle_since = now
            if proved:
                self.checks.used(instance, now)
        self.slots.release(instance, key)

    def suspend(self, instance: TrackedInstance, key: str, suspension: Suspension) -> None:
        """Keep the slot of a suspended task."""
        self.slots.suspend(instance, key, suspension)
        self.suspensions.update(instance)

    def resume(self, instance: TrackedInstance, key: str) -> int:
        """Give a suspended task its slot back, and return the slot's number."""
        slot = self.slots.resume(instance, key)
        self.suspensions.update(instance)
        return slot

    def drop(self, instance: TrackedInstance, key: str, now: float) -> None:
        """Take the slot of a suspended task back."""
        instance.idle_since = now
        self.slots.drop(instance, key)
        self.suspensions.update(instance)

    def reconsider(self, instance: TrackedInstance) -> None:
        """Offer an instance again, or no more, after the cloud has reported another state."""
        self.idle.open(instance)
        if instance.state is State.UNKNOWN:
            self.unclear[instance.id] = instance
        else:
            self.unclear.pop(instance.id, None)
            self.idle.add(instance)
        self.slots.update(instance)

    # Checks.

    def check(
        self, instance: TrackedInstance, settings: Settings, out: Outbox, *, cloud: bool
    ) -> None:
        """Begin a health check.

        Args:
            instance: the one to check; no check of it is under way.
            settings: with the timeout.
            out: takes the effect.
            cloud: whether to ask the provider too.
        """
        self.checks.begin(instance)
        timeout_seconds = settings.probe_timeout.total_seconds()
        out.add(CheckHealth(self.name, instance.id, timeout_seconds, cloud))

    def check_passed(self, instance: TrackedInstance, now: float) -> bool:
        """Offer an instance that passed a check; return whether it was not offered before."""
        was_sick = self.checks.passed(instance, now)
        if was_sick:
            self.obstacles.leave(instance.id)
            self.idle.open(instance)
            self.slots.update(instance)
        return was_sick

    def check_failed(self, instance: TrackedInstance, reason: str, now: Now) -> None:
        """Offer an instance to no task until it passes a check, and look whether it is there."""
        self.obstacles.meet(instance.id, Stage.HEALTH, reason, now.wall)
        self.listing.hasten(now.monotonic)
        self.idle.open(instance)
        self.checks.failed(instance)
        self.slots.update(instance)
