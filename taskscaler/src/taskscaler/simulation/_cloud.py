"""A simulated cloud: the actual state of one group, as opposed to what the core knows.

A call has its effect at once; `_calls` decides how long the reply takes and whether it
arrives. The later steps of a removal or a creation are planned on the clock. A plan holds
the instance and not its id, so it cannot hit a successor with the same id.

Two listings in a row are never both wrong, because a cloud that always shows an old state
cannot be distinguished from a cloud in which nothing happens.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fleeting.errors import OutOfCapacity, ProviderError
from fleeting.types import Accepted, CreationFailure, Instance, Listing, State
from taskscaler.simulation._faults import Dice, Faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.simulation._clock import Clock
    from taskscaler.simulation._models import GroupModel

__all__ = ("Cloud", "SimulatedInstance")

# A stale listing is at most this old.
STALE_SECONDS = 120.0
# How many failures to create a listing repeats.
KEPT_FAILURES = 5


class SimulatedInstance:
    """One instance in the cloud.

    Attributes:
        shown: the instance as a listing shows it.
        ours: whether an increase of the manager created it.
        foreseen: whether the core could know of it; false for an instance that was not
            requested until a listing has shown it.
        since: when it was created, in monotonic seconds.
        troubled: whether a fault ever affected it.
    """

    __slots__ = ("foreseen", "ours", "shown", "since", "troubled")

    def __init__(self, shown: Instance, since: float, *, ours: bool) -> None:
        self.shown = shown
        self.ours = ours
        self.foreseen = ours
        self.since = since
        self.troubled = not ours

    @property
    def id(self) -> str:
        """Return its id."""
        return self.shown.id


class Cloud:
    """The instances of one group.

    Args:
        model: the model of the group.
        clock: the simulated clock.
        faults: the faults that happen.
        seed: the seed of the random numbers.

    Attributes:
        model: the model of the group.
        members: the existing instances, by id.
        pending: the number of accepted instances without an id.
        promised: the number of instances that calls in progress will create.
        created: the number of instances created for the manager so far.
        seconds_used: the total lifetime of the requested instances that do not exist any
            more.
        troubled: the ids of all instances that a fault ever affected.
        lied: whether the newest listing, received or on its way, was wrong.
    """

    def __init__(self, model: GroupModel, clock: Clock, faults: Faults, seed: str) -> None:
        self.model = model
        self.members: dict[str, SimulatedInstance] = {}
        self.pending = 0
        self.promised = 0
        self.created = 0
        self.seconds_used = 0.0
        self.troubled: set[str] = set()
        self._clock = clock
        self._seed = f"{seed}/{model.info.id}"
        self._chance = Random(f"{self._seed}/chance")
        self._numbers = 0
        self._failures: list[CreationFailure] = []
        self._vanished: list[SimulatedInstance] = []
        self._picture: Listing | None = None
        self._lie: Listing | None = None
        self._earlier: tuple[float, Listing] = (clock.seconds, Listing())
        self.lied = False
        self.set_faults(faults)

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults from now on."""
        self.faults = faults
        seed = self._seed
        self._creations = Dice(faults, f"{seed}/creations", "never_comes", "nameless")
        self._boots = Dice(faults, f"{seed}/boots", "never_boots", "boot_fails")
        self._removals = Dice(faults, f"{seed}/removals", "kept")
        self._listings = Dice(faults, f"{seed}/listings", "stale", "incomplete", "disordered")
        self._parts = Dice(faults, f"{seed}/parts", "partial")

    @property
    def size(self) -> int:
        """Return how many instances exist or will exist."""
        return len(self.members) + self.pending + self.promised

    def instance_seconds(self) -> float:
        """Return the total lifetime of the requested instances."""
        now = self._clock.seconds
        return self.seconds_used + sum(now - m.since for m in self.members.values() if m.ours)

    def reopen(self) -> None:
        """Report no failures of earlier requests, because a new process opens the group."""
        self._failures.clear()

    # The calls.

    def list(self) -> Listing:
        """Return a listing, which may be wrong."""
        picture = self._picture
        if picture is None:
            shown = tuple(member.shown for member in self.members.values())
            picture = self._picture = Listing(shown, self.pending)
        if self._failures:
            picture = Listing(picture.instances, picture.pending, tuple(self._failures))
        kind = self._listings.throw()
        if kind:
            return self._distort(kind, picture)
        self._remember(picture)
        return picture

    def heard(self, listing: Listing) -> None:
        """A listing has arrived; after a correct one the next may be wrong again."""
        if listing is not self._lie:
            self.lied = False

    def _remember(self, picture: Listing) -> None:
        at = self._clock.seconds
        if self.faults.stale and at - self._earlier[0] > STALE_SECONDS / 2:
            self._earlier = (at, Listing(picture.instances, picture.pending))

    def _distort(self, kind: str, picture: Listing) -> Listing:
        chance, instances = self._listings.chance, list(picture.instances)
        at, earlier = self._earlier
        if self.lied:
            kind = "disordered"
        if kind == "disordered":
            chance.shuffle(instances)
            self._remember(picture)
        elif kind == "stale":
            if at + STALE_SECONDS < self._clock.seconds:
                return picture
            self.lied = True
            self.troubled.update(one.id for one in (*earlier.instances, *picture.instances))
            self._lie = Listing(earlier.instances, earlier.pending, picture.failures)
            return self._lie
        else:
            self.lied = True
            left_out = {one.id for one in instances if chance.random() < 0.5}
            self.troubled |= left_out
            instances = [one for one in instances if one.id not in left_out]
        listing = Listing(tuple(instances), picture.pending, picture.failures)
        if kind == "incomplete":
            self._lie = listing
        return listing

    def increase(self, count: int) -> Accepted:
        """Create instances, as many as there is room for."""
        wanted, error = count, None
        if self._parts.throw():
            count = self._parts.chance.randrange(count)
            error = ProviderError("only a part was accepted")
        room = self.model.room
        if room is not None and len(self.members) + self.pending + count > room:
            count = max(0, room - len(self.members) - self.pending)
            error = OutOfCapacity("there are no more machines")
        ids = [id for _ in range(count) if (id := self._accept()) is not None]
        named = tuple(ids) if self.model.names and len(ids) == count else ()
        return Accepted(count, named, error if count < wanted else None)

    def _fail(self, error: ProviderError) -> None:
        self._failures.append(CreationFailure(f"failure-{self.created}", error))
        del self._failures[:-KEPT_FAILURES]

    def _accept(self) -> str | None:
        """Create one instance, sooner or later; return its id if it has one already."""
        kind = self._creations.throw()
        self.created += 1
        if not kind:
            return self._create(ours=True).id
        if kind == "never_comes":
            if self._creations.chance.random() < 0.5:
                self._fail(ProviderError("it could not be created after all"))
            return None
        self.pending += 1
        self._picture = None
        self._clock.after(self._creations.chance.uniform(1.0, 240.0), self._name)
        return None

    def _name(self) -> None:
        self.pending -= 1
        self._create(ours=True)

    def _create(self, *, ours: bool) -> SimulatedInstance:
        self._numbers += 1
        id = f"i-{self._numbers}"
        shown = Instance(id, State.CREATING, incarnation=str(self._numbers))
        member = self.members[id] = SimulatedInstance(shown, self._clock.seconds, ours=ours)
        self._picture = None
        self._boot(member)
        return member

    def _boot(self, member: SimulatedInstance) -> None:
        kind = self._boots.throw()
        if kind == "never_boots":
            member.troubled = True
            return
        state = State.FAILED if kind else State.RUNNING
        self._clock.after(self.model.boot.draw(self._chance), self._booted, member, state)

    def _booted(self, member: SimulatedInstance, state: State) -> None:
        if member.shown.state is State.CREATING:
            self._turn(member, state)

    def decrease(self, ids: Sequence[str]) -> Accepted:
        """Remove instances; those that are gone already count as accepted."""
        error: ProviderError | None = None
        if self._parts.throw():
            ids = ids[: self._parts.chance.randrange(len(ids))]
            error = ProviderError("only a part was accepted")
        for id in ids:
            member = self.members.get(id)
            if member is not None and not self._removals.throw():
                self._delete(member)
        return Accepted(len(ids), tuple(ids), error)

    def _delete(self, member: SimulatedInstance, after: float | None = None) -> None:
        if member.shown.state is not State.DELETING:
            self._turn(member, State.DELETING)
            seconds = self.model.deletion.draw(self._chance) if after is None else after
            self._clock.after(seconds, self._remove, member)

    def _remove(self, member: SimulatedInstance) -> None:
        if self.members.get(member.id) is member:
            del self.members[member.id]
            self._picture = None
            if member.ours:
                self.seconds_used += self._clock.seconds - member.since

    def suspend(self, ids: Sequence[str]) -> Accepted:
        """Suspend instances that run."""
        return self._move(ids, State.RUNNING, State.SUSPENDING, State.SUSPENDED)

    def resume(self, ids: Sequence[str]) -> Accepted:
        """Resume instances that are suspended."""
        return self._move(ids, State.SUSPENDED, State.RESUMING, State.RUNNING)

    def _move(self, ids: Sequence[str], before: State, during: State, after: State) -> Accepted:
        accepted: list[str] = []
        for id in ids:
            member = self.members.get(id)
            if member is not None and member.shown.state in (before, during, after):
                accepted.append(id)
                if member.shown.state is before:
                    self._turn(member, during)
                    seconds = self.model.deletion.draw(self._chance)
                    self._clock.after(seconds, self._moved, member, during, after)
        error = ProviderError("not all of them can do that now")
        return Accepted(len(accepted), tuple(accepted), error if len(accepted) < len(ids) else None)

    def _moved(self, member: SimulatedInstance, during: State, after: State) -> None:
        if member.shown.state is during:
            self._turn(member, after)

    def reachable(self, id: str) -> bool:
        """Return whether there is such an instance, and it runs."""
        member = self.members.get(id)
        return member is not None and member.shown.state is State.RUNNING

    # The faults.

    def happen(self, kind: str, chance: Random) -> SimulatedInstance | None:
        """Cause a fault; return the affected instance, if there is one."""
        if kind == "add":
            return self._create(ours=False)
        if kind == "come_back":
            return self._come_back()
        alive = [one for one in self.members.values() if one.shown.state is not State.DELETING]
        if not alive:
            return None
        member = chance.choice(alive)
        if kind == "recreate" and not member.foreseen:
            return None  # The core cannot know that it has a predecessor.
        member.troubled = True
        self.troubled.add(member.id)
        match kind:
            case "vanish":
                self._vanished.append(member)
                self._remove(member)
            case "recreate":
                self._recreate(member)
            case "fail":
                self._turn(member, State.FAILED)
            case _:
                self._delete(member, after=chance.uniform(30.0, 120.0))
        return member

    def _come_back(self) -> SimulatedInstance | None:
        if not self._vanished:
            return None
        member = self._vanished.pop()
        if member.id in self.members:
            return None
        member.foreseen = False
        member.since = self._clock.seconds
        self.members[member.id] = member
        self._picture = None
        self._booted(member, State.RUNNING)
        return member

    def _recreate(self, member: SimulatedInstance) -> None:
        self._remove(member)
        self._numbers += 1
        shown = Instance(member.id, State.CREATING, incarnation=str(self._numbers))
        successor = SimulatedInstance(shown, self._clock.seconds, ours=member.ours)
        successor.troubled = True
        successor.foreseen = member.foreseen
        self.members[member.id] = successor
        self._boot(successor)

    def _turn(self, member: SimulatedInstance, state: State) -> None:
        if self.members.get(member.id) is member:
            member.shown = Instance(member.id, state, member.shown.incarnation)
            self._picture = None
