"""The meaning of a listing of a group, and when to ask for one.

* A new id is ours if an operation still waits for an instance, also if it is being
  deleted already: a launch that failed is no longer waited for. If we gave it up
  earlier it is ours too, and is removed unless the answer to an operation named it
  again. One that the cloud created in the place of one that was ours is ours; no
  operation waits for it. Otherwise `unknown_instances` decides.
* An instance that is missing from several listings in a row is gone; one that was
  last seen being deleted is gone at once. After the first such listing the next ones
  follow at the fast interval, because tasks may believe that they run.
* The states `failed` and `deleting` count at once: the tasks there are lost.
* An instance whose state is `unknown` keeps its tasks, gets no others, and is not idle.
* Another incarnation under an old id is another instance. It is ours if its
  predecessor was. A decision about a stranger is not kept for the next one.

A listing may repeat a failure to create, because anyone may read it: the id of a failure
tells that it was counted.

Most of a listing is unchanged, so the loop does next to nothing for an instance that
has not changed. New and changed instances cost more, and each may have further
consequences, so a listing with many of them is digested in portions. `TimePassed`
continues, and no scaling decision is taken before the end. Meanwhile tasks come and
go, because each instance is consistent at any time. Missing instances, and those
that never appeared, are looked for at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import List
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import COMING, SERVING, Phase, Trigger
from taskscaler.core.model.listing import Digestion
from taskscaler.core.model.settings import UnknownInstances
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from fleeting.types import Instance as Listed
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

__all__ = ("PORTION", "digest", "listed", "not_listed", "request")

# An instance that runs leaves these phases. One that is about to be suspended may be
# called running for a while, so SUSPENDING is not among them.
_ASLEEP = (Phase.CREATING, Phase.SUSPENDED, Phase.RESUMING)

# How much of a listing is digested at once, where an unchanged instance counts as one:
# a few milliseconds of work.
PORTION = 20_000

# How much an instance that is new or has changed counts.
CHANGED = 100

_RETURNED = Departure(Rule.UNKNOWN, "it came back after it had been given up")
_NOT_OURS = Departure(Rule.UNKNOWN, "it is not ours")


def request(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """Ask for a listing if one is due."""
    if group.listing.request(now.monotonic):
        out.add(List(group.name, fleet.settings.operation_timeout.total_seconds()))


def listed(fleet: Fleet, event: events.ListingArrived, now: Now, out: Outbox) -> None:
    """A listing arrived: bring the group up to date with its first portion."""
    group, listing = fleet.group(event.group), event.listing
    group.ownership.undecided = 0
    strangers = group.ownership.strangers
    if group.ownership.rejudge:
        group.ownership.rejudge = False
        strangers = {**strangers, **_forget_strangers(group, now)}
    group.creations.expect(listing.pending, now.monotonic)
    for failure in group.listing.take_new(listing.failures):
        group.creations.lose_one(out)
        group.creations.undelivered(
            str(failure),
            now.monotonic,
            fleet.settings,
            since=group.creations.requested_at,
            error=failure,
        )
    digestion = Digestion(iter(listing.instances), len(group.members), strangers)
    group.listing.begin(digestion, now.monotonic)
    digest(fleet, group, now, out)
    # Tasks whose slots were lost before they knew of them are in the queue again.
    placing.place(fleet, now, out)


def not_listed(fleet: Fleet, event: events.ListingFailed, now: Now, out: Outbox) -> None:
    """A listing failed: try again later; everything known stays, unless the group is gone."""
    group = fleet.group(event.group)
    group.listing.failed(event.error, now.monotonic, fleet.settings)
    if group.listing.gone >= fleet.settings.missed_updates:
        _group_gone(fleet, group, now, out)


def _group_gone(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """The cloud has said often enough that there is no such group: what it held is gone.

    It is still listed, and serves again if it is created again.
    """
    for instance in list(group.members):
        leaving.lose(fleet, group, instance, "its group is gone", now, out)
    group.creations.expect(0, now.monotonic)
    group.creations.write_off(float("inf"), out)
    placing.place(fleet, now, out)


def digest(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """Digest the next portion of a listing, if there is one."""
    digestion = group.listing.digestion
    if digestion is None or not _look(fleet, group, digestion, now, out):
        return
    group.listing.missing = 0
    # The counts are compared first, because nearly always no instance is missing.
    if digestion.seen < digestion.known:
        _find_missing(fleet, group, now, out)
    _write_off(fleet, group, now, out)
    group.listing.finish(now.monotonic, group.list_after(fleet.settings))


def _look(fleet: Fleet, group: Group, digestion: Digestion, now: Now, out: Outbox) -> bool:
    """Look at the next instances, one at least; return whether these were the last."""
    portion, count = fleet.portion, group.listing.count
    for shown in digestion.rest:
        portion -= 1
        instance = group.members.get(shown.id)
        if instance is None:
            portion -= CHANGED
            _appeared(fleet, group, shown, now, out, strange=digestion.knows_as_strange(shown))
        elif instance.mark != count:  # A listing may show an instance twice.
            instance.mark = count
            instance.missed = 0
            digestion.seen += 1
            if shown.state is not instance.state or shown.incarnation != instance.incarnation:
                portion -= CHANGED
                _changed(fleet, group, instance, shown, now, out)
        if portion <= 0:
            return False
    return True


def _forget_strangers(group: Group, now: Now) -> dict[str, str | None]:
    """Forget what is not ours so that it is judged again; return ids and incarnations.

    Those that an earlier setting condemned are among them: the one in force decides.
    """
    strangers = list(group.members.strangers.values())
    for instance in strangers:
        group.step(instance, Trigger.VANISHED, now)
    return {one.id: one.incarnation for one in strangers}


# New instances.


def _appeared(
    fleet: Fleet, group: Group, shown: Listed, now: Now, out: Outbox, *, strange: bool = False
) -> None:
    """Decide whose a new instance is.

    Args:
        fleet: with the settings.
        group: where it appeared.
        shown: the instance.
        now: the time.
        out: takes the effects.
        strange: whether it existed before any request, so that only a name makes it ours.
    """
    creations, ownership = group.creations, group.ownership
    named = creations.operations.has_named(shown.id)
    # Some groups reuse ids: static hosts have no others. So a name outweighs the past.
    if ownership.has_given_up(shown) and not named:
        if creations.operations.unanswered:
            # The answer may name it, and the next listing will show it again.
            ownership.undecided += 1
        else:
            instance = _add(group, shown, Phase.CREATING, now, out)
            leaving.remove(group, instance, _RETURNED, now, out)
        return
    unknown = fleet.settings.unknown_instances
    deleting = shown.state is State.DELETING
    # An instance that is first seen as it ends is most likely a launch of ours that failed.
    claimed = not deleting and _replaces_ours(group, shown)
    if not claimed and (named or not strange):
        claimed = creations.claim(shown.id, out, likely=deleting)
    if claimed or (unknown is UnknownInstances.ADOPT and not deleting):
        _add_ours(fleet, group, shown, now, out)
        return
    instance = _add(group, shown, Phase.FOREIGN, now, out)
    if unknown is UnknownInstances.REMOVE and not deleting:
        leaving.remove(group, instance, _NOT_OURS, now, out)


def _replaces_ours(group: Group, shown: Listed) -> bool:
    """Return whether the cloud created an instance in the place of one that is or was ours."""
    if shown.replaces is None:
        return False
    before = group.members.get(shown.replaces)
    return group.ownership.was_ours(shown.replaces) if before is None else not before.stranger


def _add(group: Group, shown: Listed, phase: Phase, now: Now, out: Outbox) -> TrackedInstance:
    group.ownership.forget(shown.id, out)
    instance = group.members.add(shown.id, shown.state, shown.incarnation, phase, now)
    instance.mark = group.listing.count
    return instance


def _add_ours(fleet: Fleet, group: Group, shown: Listed, now: Now, out: Outbox) -> None:
    instance = _add(group, shown, Phase.CREATING, now, out)
    out.put(instance.record)
    _observe(fleet, group, instance, shown, now, out)


# Changed instances.


def _changed(
    fleet: Fleet, group: Group, instance: TrackedInstance, shown: Listed, now: Now, out: Outbox
) -> None:
    before = instance.incarnation
    if before is not None and shown.incarnation not in (None, before):
        _recreated(fleet, group, instance, shown, now, out)
        return
    if before is None and shown.incarnation is not None:
        instance.incarnation = shown.incarnation
        if not instance.stranger:
            out.put(instance.record)
    _observe(fleet, group, instance, shown, now, out)


def _recreated(
    fleet: Fleet, group: Group, instance: TrackedInstance, shown: Listed, now: Now, out: Outbox
) -> None:
    """Replace an instance by a later one with the same id."""
    # The tasks ran on the old instance, whatever its successor is.
    leaving.lose(fleet, group, instance, "it was recreated under the same id", now, out)
    if instance.stranger:
        # It was not created for us, so it is not what a request of ours waits for.
        _appeared(fleet, group, shown, now, out, strange=True)
        return
    if group.creations.operations.has_named(shown.id):
        group.creations.claim(shown.id, out)
    _add_ours(fleet, group, shown, now, out)


def _observe(
    fleet: Fleet, group: Group, instance: TrackedInstance, shown: Listed, now: Now, out: Outbox
) -> None:
    """React to the state that the cloud reports for an instance of ours."""
    was, instance.state = instance.state, shown.state
    if State.UNKNOWN in (was, shown.state):
        group.reconsider(instance)
    if instance.phase in (Phase.REMOVING, Phase.FOREIGN):
        return
    match shown.state:
        case State.RUNNING if instance.phase in _ASLEEP:
            group.prepare(instance, fleet.settings, now, out)
        case State.FAILED:
            cause = shown.reason or "the cloud says that it failed"
            _creation_failed(fleet, group, instance, f"failed: {cause}", now)
            leaving.take_down(fleet, group, instance, Departure(Rule.FAILED, cause), now, out)
        case State.DELETING:
            cause = shown.reason or "the cloud takes it away"
            what = f"went before it was ready: {cause}"
            _creation_failed(fleet, group, instance, what, now)
            leaving.take_down(fleet, group, instance, Departure(Rule.LOST, cause), now, out)
        case State.SUSPENDING | State.SUSPENDED:
            _stopped(fleet, group, instance, shown, now, out)
        case _:
            pass


def _stopped(
    fleet: Fleet, group: Group, instance: TrackedInstance, shown: Listed, now: Now, out: Outbox
) -> None:
    """The cloud says that an instance is suspended, or is about to be."""
    cause = shown.reason or "the cloud suspended it"
    if instance.tasks:
        placing.revoke_running(fleet, group, instance, cause, out)
    if not instance.suspended:
        leaving.remove(group, instance, Departure(Rule.LOST, cause), now, out)
        return
    if instance.phase in SERVING or instance.phase is Phase.PREPARING:
        group.step(instance, Trigger.STOPS, now)
        out.put(instance.record)  # Without the tasks that ran there.
    if shown.state is State.SUSPENDED and instance.phase in (Phase.CREATING, Phase.SUSPENDING):
        group.step(instance, Trigger.STOPPED, now)
        if any(key in fleet.tasks.resuming for key in instance.suspended):
            group.step(instance, Trigger.WAKES, now)


def _creation_failed(
    fleet: Fleet, group: Group, instance: TrackedInstance, what: str, now: Now
) -> None:
    """Count the end of an instance that was never ready as a failure to create."""
    if instance.phase in COMING and instance.ready_at is None:
        reason = f"instance {instance.id} {what}"
        group.creations.undelivered(reason, now.monotonic, fleet.settings, since=instance.seen_at)


# Missing instances.


def _find_missing(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    missing = [one for one in group.members if one.mark != group.listing.count]
    for instance in missing:
        instance.missed += 1
        deleted = instance.state is State.DELETING
        if deleted or instance.missed >= fleet.settings.missed_updates:
            cause = "it is no longer listed"
            # An instance of a previous process that was never seen proves no failure.
            if instance.mark:
                what = f"went before it was ready: {cause}"
                _creation_failed(fleet, group, instance, what, now)
            leaving.lose(fleet, group, instance, cause, now, out)
        else:
            group.listing.missing += 1


def _write_off(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    timeout = fleet.settings.creation_timeout.total_seconds()
    for count in group.creations.write_off(now.monotonic - timeout, out):
        reason = f"{count} accepted instances did not appear within {Duration(seconds=timeout)}"
        since = now.monotonic - timeout
        group.creations.undelivered(reason, now.monotonic, fleet.settings, since=since)
