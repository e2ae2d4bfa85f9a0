"""Requests to a provider about single instances: to remove, suspend or resume them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.agenda import CHANGED
from taskscaler.core.model.lifecycle import SERVING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.instance import TrackedInstance

__all__ = ("DueRequest", "Requests", "SuspensionRequests")


class DueRequest:
    """A request for one instance.

    Attributes:
        instance: the one.
        due_at: when to ask for it (again), in monotonic seconds.
        awaited: whether the answer to the newest call is awaited.
        accepted: whether the provider has accepted it.
        calls: how many calls have included it.
    """

    __slots__ = ("accepted", "awaited", "calls", "due_at", "instance")

    def __init__(self, instance: TrackedInstance, due_at: float) -> None:
        self.instance = instance
        self.due_at = due_at
        self.awaited = False
        self.accepted = False
        self.calls = 0


class Requests:
    """The requests of one kind in one group: one call at a time, for all that are due.

    An instance stays here until it has reached what was asked for. An accepted
    request may turn out to have had no effect, so it is repeated after an interval.

    Attributes:
        calling: whether the answer to a call is awaited.
    """

    __slots__ = ("_agenda", "_open", "calling")

    def __init__(self, agenda: Agenda) -> None:
        self.calling = False
        self._agenda = agenda
        self._open: dict[str, DueRequest] = {}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, id: str) -> DueRequest | None:
        """Return the request for an instance, or None."""
        return self._open.get(id)

    def add(self, instance: TrackedInstance, at: float) -> None:
        """Ask for an instance with the next call from a moment on."""
        self._open[instance.id] = DueRequest(instance, at)

    def discard(self, instance: TrackedInstance) -> None:
        """Forget the request for an instance."""
        del self._open[instance.id]

    def due(self, now: float) -> list[DueRequest]:
        """Return what can be asked for now: nothing while an answer is awaited."""
        if self.calling:
            return []
        # An answer may have come without an instance that the call had included.
        return [one for one in self._open.values() if not one.awaited and one.due_at <= now]

    def call(self, requests: Iterable[DueRequest]) -> tuple[str, ...]:
        """Begin a call for some of them, and return the ids; empty if there are none."""
        ids: list[str] = []
        for one in requests:
            one.awaited = True
            one.calls += 1
            ids.append(one.instance.id)
        self.calling = self.calling or bool(ids)
        return tuple(ids)

    def postpone(self, request: DueRequest, until: float) -> None:
        """Do not ask for one before a moment."""
        request.due_at = until

    def settle(self, ids: Iterable[str], retry_at: float) -> list[TrackedInstance]:
        """End a call, and ask again at a moment for those that are still here.

        Returns:
            The instances that the call included and that are still here.
        """
        self.calling = False
        self._agenda.news |= CHANGED
        answered = [one for id in ids if (one := self._open.get(id)) and one.awaited]
        for one in answered:
            one.awaited = False
            one.due_at = retry_at
        return [one.instance for one in answered]

    def accept(self, ids: Iterable[str]) -> None:
        """Record that the provider has accepted the requests for these instances."""
        for id in ids:
            if id in self._open:
                self._open[id].accepted = True

    def next_at(self) -> float:
        """Return when the next call can be made, in monotonic seconds."""
        if self.calling:
            return float("inf")
        return min(
            (one.due_at for one in self._open.values() if not one.awaited), default=float("inf")
        )


class SuspensionRequests:
    """The instances of one group that keep suspended tasks.

    Attributes:
        kept: all of them, by id.
        stops: requests to suspend an instance.
        starts: requests to resume an instance.
    """

    __slots__ = ("_kept", "_refused_until", "starts", "stops")

    def __init__(self, agenda: Agenda) -> None:
        self.stops = Requests(agenda)
        self.starts = Requests(agenda)
        self._kept: dict[str, TrackedInstance] = {}
        # Not to be suspended before, after the provider refused to.
        self._refused_until: dict[str, float] = {}

    @property
    def kept(self) -> Mapping[str, TrackedInstance]:
        """Return the instances that keep suspended tasks, by id."""
        return self._kept

    @property
    def slots(self) -> int:
        """Return the slots that suspended tasks keep."""
        return sum(len(one.suspended) for one in self._kept.values()) if self._kept else 0

    def update(self, instance: TrackedInstance) -> None:
        """Follow a change of the suspended tasks of an instance."""
        if instance.suspended:
            self._kept[instance.id] = instance
        else:
            self._kept.pop(instance.id, None)

    def forget(self, instance: TrackedInstance) -> None:
        """Forget an instance that is gone."""
        self._kept.pop(instance.id, None)
        self._refused_until.pop(instance.id, None)

    def refuse(self, instance: TrackedInstance, until: float) -> None:
        """Do not ask for the suspension of an instance before a moment."""
        self._refused_until[instance.id] = until

    def may_stop(self, instance: TrackedInstance, now: float) -> bool:
        """Return whether nothing prevents an instance from being suspended now."""
        return self.may_stop_at(instance, now) <= now

    def may_stop_at(self, instance: TrackedInstance, now: float) -> float:
        """Return when the suspension of an instance may be requested, now at the earliest."""
        return max(now, self._refused_until.get(instance.id, now))

    def next_at(self, now: float) -> float:
        """Return when the next request is due, in monotonic seconds."""
        times = [self.stops.next_at(), self.starts.next_at()]
        for id, at in self._refused_until.items():
            instance = self._kept.get(id)
            if at > now and instance and instance.phase in SERVING and not instance.tasks:
                times.append(at)
        return min(times)
