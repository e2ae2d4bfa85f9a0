"""What a listing of a group means.

* An id that is new is ours if an operation still waits for an instance. If we
  gave it up earlier it is ours too, and is removed unless the answer to an
  operation named it again. Otherwise the settings say.
* An id that is missing is gone after several listings in a row without it, at
  once if it was last seen being deleted.
* `failed` and `deleting` count at once: the tasks there are lost.
* Another incarnation under an old id is another instance; it is ours if its
  predecessor was.

Most of a listing is as it was, so the loop over it does next to nothing for
an instance that has not changed. What is new or has changed costs more, and each
may set off more elsewhere, so a listing with much of that is digested in parts:
`TimePassed` goes on with it, and no scaling decision is taken before its end. In
between, tasks come and go as ever, because each instance is whole at any time;
what is missing is looked for, and what never came is written off, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.instance import Life, Trigger
from taskscaler.core.model.settings import UnknownInstances
from taskscaler.core.rules import suspension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleeting.types import Instance as Listed
    from fleeting.types import Listing
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance
    from taskscaler.core.model.outbox import Outbox

__all__ = ("Digestion", "begin", "digest")

# An instance that runs is not to be found in these lives. One that is to be suspended may
# be called running for a while yet.
_ASLEEP = (Life.CREATING, Life.SUSPENDED, Life.RESUMING)


# How much of a listing is digested at once, where an instance that is as it was counts as
# one: some milliseconds' work.
PORTION = 20_000

# What an instance that is new or has changed counts as.
CHANGED = 100


@dataclass(slots=True)
class Digestion:
    """A listing that is being digested.

    Attributes:
        rest: what is still to be looked at.
        known: how many instances were known before it.
        strangers: the ids of those that are not ours, and are to be judged again.
        seen: how many of the known ones it had so far.
    """

    rest: Iterator[Listed]
    known: int
    strangers: frozenset[str]
    seen: int = 0


def begin(group: Group, listing: Listing, now: Now, out: Outbox) -> None:
    """Take up a listing; `digest` brings the group up to date with it."""
    group.listed += 1
    group.listed_at = now.monotonic
    group.undecided = 0
    group.listing_backoff.succeeded(now.monotonic)
    strangers = group.strangers
    if group.judge_again:
        strangers |= _forget_foreign(group)
    group.hear_pending(listing.pending, now)
    for failure in listing.failures:
        for operation in group.operations.fail(1):
            group.store_operation(operation, out)
        group.creation_failed(str(failure), now, failure)
    group.digestion = Digestion(iter(listing.instances), len(group.instances), strangers)


def digest(group: Group, digestion: Digestion, portion: int, now: Now, out: Outbox) -> bool:
    """Look at the next part of a listing, one instance at least; return whether it was the last."""
    for listed in digestion.rest:
        portion -= 1
        instance = group.instances.get(listed.id)
        if instance is None:
            portion -= CHANGED
            _appeared(group, listed, now, out, strange=listed.id in digestion.strangers)
        elif instance.mark != group.listed:
            instance.mark = group.listed
            instance.missed = 0
            digestion.seen += 1
            if listed.state is not instance.state or listed.incarnation != instance.incarnation:
                portion -= CHANGED
                _changed(group, instance, listed, now, out)
        if portion <= 0:
            return False
    group.digestion = None
    if digestion.seen < digestion.known:
        _find_missing(group, now, out)
    _write_off(group, now, out)
    return True


def _forget_foreign(group: Group) -> frozenset[str]:
    """Let what is not ours be judged again, and return the ids."""
    group.judge_again = False
    foreign = [one for one in group.instances.values() if one.life is Life.FOREIGN]
    for instance in foreign:
        group.step(instance, Trigger.VANISHED)
        del group.instances[instance.id]
    return frozenset(one.id for one in foreign)


def _appeared(
    group: Group, listed: Listed, now: Now, out: Outbox, *, strange: bool = False
) -> None:
    # Some groups use their ids again: static hosts have no others.
    if _same(group.given_up, listed) and not group.operations.has_named(listed.id):
        if group.operations.unanswered:
            group.undecided += 1
            return  # The answer may name it; the next listing will have it too.
        instance = _take_up(group, listed, Life.FOREIGN, now, out)
        reason = "it came back after it had been given up"
        group.condemn(instance, Rule.UNKNOWN, reason, now, out)
        return
    if listed.state is not State.DELETING or group.operations.has_named(listed.id):
        # What was there before we asked for anything did not come of that.
        strange = strange and not group.operations.has_named(listed.id)
        operation = None if strange else group.operations.claim(listed.id)
        if operation is not None:
            group.store_operation(operation, out)
            _ours(group, listed, now, out)
            return
        if group.settings.unknown_instances is UnknownInstances.ADOPT:
            _ours(group, listed, now, out)
            return
    instance = _take_up(group, listed, Life.FOREIGN, now, out)
    remove = group.settings.unknown_instances is UnknownInstances.REMOVE
    if remove and listed.state is not State.DELETING:
        group.condemn(instance, Rule.UNKNOWN, "it is not ours", now, out)


def _same(given_up: dict[str, str | None], listed: Listed) -> bool:
    if listed.id not in given_up:
        return False
    before = given_up[listed.id]
    return before is None or listed.incarnation is None or before == listed.incarnation


def _take_up(group: Group, listed: Listed, life: Life, now: Now, out: Outbox) -> Instance:
    if listed.id in group.given_up:
        del group.given_up[listed.id]
        out.drop(("tombstone", group.name, listed.id))
    instance = group.add(listed.id, listed.state, listed.incarnation, life, now)
    instance.mark = group.listed
    return instance


def _ours(group: Group, listed: Listed, now: Now, out: Outbox) -> None:
    instance = _take_up(group, listed, Life.CREATING, now, out)
    out.put(group.record(instance))
    _observe(group, instance, listed, now, out)


def _changed(group: Group, instance: Instance, listed: Listed, now: Now, out: Outbox) -> None:
    before = instance.incarnation
    if before is not None and listed.incarnation not in (None, before):
        was_foreign = instance.life is Life.FOREIGN
        group.lose(instance, "it was recreated under the same id", now, out)
        if was_foreign:
            _appeared(group, listed, now, out)
        else:
            if group.operations.has_named(listed.id) and (
                operation := group.operations.claim(listed.id)
            ):
                group.store_operation(operation, out)
            _ours(group, listed, now, out)
        return
    if before is None and listed.incarnation is not None:
        instance.incarnation = listed.incarnation
        if instance.life is not Life.FOREIGN:
            out.put(group.record(instance))
    _observe(group, instance, listed, now, out)


def _observe(group: Group, instance: Instance, listed: Listed, now: Now, out: Outbox) -> None:
    instance.state = listed.state
    if instance.life in (Life.REMOVING, Life.FOREIGN):
        return
    match listed.state:
        case State.RUNNING if instance.life in _ASLEEP:
            group.runs(instance, out)
        case State.FAILED:
            cause = listed.reason or "the cloud says that it failed"
            _came_to_nothing(group, instance, f"failed: {cause}", now)
            group.take_down(instance, Rule.FAILED, cause, now, out)
        case State.DELETING:
            cause = listed.reason or "the cloud takes it away"
            _came_to_nothing(group, instance, f"went before it was ready: {cause}", now)
            group.take_down(instance, Rule.LOST, cause, now, out)
        case State.SUSPENDING | State.SUSPENDED:
            suspension.stopped(group, instance, listed, now, out)
        case _:
            pass


def _came_to_nothing(group: Group, instance: Instance, what: str, now: Now) -> None:
    if instance.life in (Life.CREATING, Life.PREPARING):
        group.creation_failed(f"instance {instance.id} {what}", now)


def _find_missing(group: Group, now: Now, out: Outbox) -> None:
    missing = [one for one in group.instances.values() if one.mark != group.listed]
    for instance in missing:
        instance.missed += 1
        deleted = instance.state is State.DELETING
        if deleted or instance.missed >= group.settings.missed_updates:
            cause = "it is no longer listed"
            # Of what an earlier life of the scaler had, and we never saw, we know no failure.
            if instance.mark:
                _came_to_nothing(group, instance, f"went before it was ready: {cause}", now)
            group.lose(instance, cause, now, out)


def _write_off(group: Group, now: Now, out: Outbox) -> None:
    timeout = group.settings.creation_timeout
    before = now.monotonic - timeout.total_seconds()
    for operation, count in group.operations.write_off(before, group.pending).items():
        group.store_operation(operation, out)
        patience = Duration(seconds=timeout.total_seconds())
        reason = f"{count} accepted instances did not appear within {patience}"
        group.creation_failed(reason, now)
