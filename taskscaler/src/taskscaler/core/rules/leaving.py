"""How an instance leaves: the operations that the rules share.

`dismiss` is the ordinary way: tasks on the instance end first, and the first reason
stays. `take_down` is for an instance on which nothing can run any more, or must not;
`lose` is for one that is gone already. Either way, `remove` is the step after which
the instance waits for its removal by the provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.effects import Gone
from taskscaler.core.model.lifecycle import SERVING, Phase, Trigger
from taskscaler.core.rules import placing

if TYPE_CHECKING:
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Departure, TrackedInstance

__all__ = ("dismiss", "lose", "remove", "settle", "take_down")


def dismiss(
    fleet: Fleet,
    group: Group,
    instance: TrackedInstance,
    departure: Departure,
    now: Now,
    out: Outbox,
) -> None:
    """Remove an instance as soon as no task is left on it. Idempotent.

    Unconfirmed tasks return to the queue: another instance will last longer.
    """
    if instance.departure is not None:
        return
    placing.call_back(fleet, group, instance)
    group.dismiss(instance, departure, now)
    out.put(instance.record)
    settle(group, instance, now, out)


def settle(group: Group, instance: TrackedInstance, now: Now, out: Outbox) -> None:
    """Do what is due if no task runs on the instance. Idempotent.

    Without suspended tasks, the instance is idle, or removed if it was dismissed. With
    some it is suspended; until then its other slots are usable as usual.
    """
    if instance.tasks:
        return
    if instance.suspended:
        may_stop = group.suspensions.may_stop(instance, now.monotonic)
        if instance.phase in SERVING and may_stop:
            group.step(instance, Trigger.STOPS, now)
            out.put(instance.record)
    elif instance.phase is Phase.READY:
        group.idle.add(instance)
    elif instance.departure is not None and instance.phase is not Phase.REMOVING:
        remove(group, instance, instance.departure, now, out)


def remove(
    group: Group, instance: TrackedInstance, departure: Departure, now: Now, out: Outbox
) -> None:
    """An instance without tasks goes with the next removal request."""
    group.dismiss(instance, departure, now)
    group.step(instance, Trigger.CLEARED, now)
    if not instance.stranger:
        out.put(instance.record)


def take_down(
    fleet: Fleet,
    group: Group,
    instance: TrackedInstance,
    departure: Departure,
    now: Now,
    out: Outbox,
) -> None:
    """Remove an instance whatever runs there; its tasks have lost their slots."""
    placing.revoke_all(fleet, group, instance, departure.reason, now, out)
    remove(group, instance, departure, now, out)


def lose(
    fleet: Fleet, group: Group, instance: TrackedInstance, cause: str, now: Now, out: Outbox
) -> None:
    """An instance is gone: forget it, but remember its id if it was ours."""
    placing.revoke_all(fleet, group, instance, cause, now, out)
    was_foreign = instance.phase is Phase.FOREIGN
    ended = group.is_ending(instance)
    group.step(instance, Trigger.VANISHED, now)
    group.creations.instance_gone(used_up=instance.used_up)
    if was_foreign:
        return
    if not instance.stranger:
        out.drop(("instance", group.name, instance.id))
        group.ownership.lose(instance.id)
        group.ownership.give_up(instance, now.wall, out, ended=ended)
    reason = instance.departure.reason if instance.departure else cause
    out.add(
        Gone(
            group.name,
            instance.id,
            instance.created_at,
            instance.ready_at,
            now.wall,
            reason,
            instance.used,
        )
    )
