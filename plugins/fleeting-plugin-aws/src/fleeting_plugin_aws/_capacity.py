"""Decides how a group's desired capacity is changed.

AWS keeps a single number, the desired capacity, which every client sets as a
whole. So it is read before each write, and only one write of ours is under way
at a time. It is never lowered to remove instances, because AWS would choose
which ones.

**Growing.** The new number starts from the members if there are more of them
than desired, which can happen after a failed launch was given up. AWS refuses a
number above `MaxSize` as a whole, so only the part that fits is asked for.

**Giving up failed launches.** When a launch fails, the desired capacity stays
high and AWS tries again for ever. A caller that learns that an instance will
not come may ask for another one elsewhere. So before the plugin reports that,
it must become true: the desired capacity is lowered to the members that exist.
That is only done when

* a launch has failed since more was asked for last, and `launch_patience` has
  passed, in which AWS may have succeeded elsewhere, for example in another zone;
* no launch is under way whose instance is not a member yet: it may still come;
* every member that counts is protected from scale-in. An instance can arrive at
  the very moment of the write, and then the group has one member more than
  desired. AWS ends one that is not protected. All earlier members are
  protected, so that can only be the new instance, which runs no task yet. If it
  is protected too, AWS ends none: the listing after the write shows it, and one
  failure less is reported.

If a member is not protected, the number stays as it is and the missing
instances stay pending. The group's check shows the command that protects them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from fleeting_plugin_aws._activities import Activity
    from fleeting_plugin_aws._states import GroupMember, GroupSnapshot

__all__ = (
    "CapacityIncrease",
    "TerminationPlan",
    "all_protected",
    "can_give_up",
    "count_given_up",
    "plan_increase",
    "plan_termination",
    "reduced_capacity",
)


class CapacityIncrease(NamedTuple):
    """How to grow a group.

    Attributes:
        accepted: by how many instances.
        desired: the desired capacity to set.
    """

    accepted: int
    desired: int


class TerminationPlan(NamedTuple):
    """How to remove instances.

    Attributes:
        done: ids that need no request: not members, or already being removed.
        shrink: ids to terminate while decrementing the desired capacity for each.
        release: ids to terminate without that, because they do not count against it.
        refused: ids whose removal would bring the group below `MinSize`.
    """

    done: tuple[str, ...]
    shrink: tuple[str, ...]
    release: tuple[str, ...]
    refused: tuple[str, ...]


def plan_increase(group: GroupSnapshot, count: int) -> CapacityIncrease:
    """Return how many of `count` instances fit, and which capacity to set for them."""
    base = max(group.desired, group.counted)
    accepted = max(0, min(count, group.maximum - base))
    return CapacityIncrease(accepted, base + accepted)


def plan_termination(group: GroupSnapshot, ids: Sequence[str]) -> TerminationPlan:
    """Return what to do about each id.

    An instance in standby does not count: the desired capacity was decremented when it
    entered. Decrementing again could make AWS end a member that works. The same holds for an
    instance that is retained after its termination. If there are more members than desired,
    that many can be terminated without decrementing.
    """
    done: list[str] = []
    shrink: list[str] = []
    release: list[str] = []
    for id in dict.fromkeys(ids):
        member = group.members.get(id)
        if member is None:
            done.append(id)
        elif member.counts:
            shrink.append(id)
        elif _stays_until_terminated(member):
            release.append(id)
        else:
            done.append(id)
    surplus = max(0, group.counted - group.desired)
    release += shrink[:surplus]
    del shrink[:surplus]
    room = max(0, group.desired - group.minimum)
    return TerminationPlan(tuple(done), tuple(shrink[:room]), tuple(release), tuple(shrink[room:]))


def _stays_until_terminated(member: GroupMember) -> bool:
    return member.lifecycle_state in {"EnteringStandby", "Standby", "Terminating:Retained"}


def all_protected(group: GroupSnapshot) -> bool:
    """Return whether every member that counts is protected from scale-in."""
    return all(member.protected for member in group.members.values() if member.counts)


def can_give_up(
    group: GroupSnapshot,
    activities: Sequence[Activity],
    since: datetime,
    patience: timedelta,
    now: datetime,
) -> bool:
    """Return whether the missing instances of a group can be given up.

    Args:
        group: the group as it is.
        activities: the newest activities of its history.
        since: when more instances were asked for last.
        patience: how long AWS may retry a failed launch.
        now: by AWS's clock, like all times here.
    """
    coming = any(one.is_launching and one.instance not in group.members for one in activities)
    failed = [one for one in activities if one.is_failed_launch and one.started >= since]
    if coming or not failed:
        return False
    # AWS's clock, as read from its answers, has whole seconds.
    return max(one.ended for one in failed).replace(microsecond=0) + patience <= now


def reduced_capacity(group: GroupSnapshot) -> int:
    """Return the desired capacity at which AWS stops launching the missing instances."""
    return min(group.desired, max(group.counted, group.minimum))


def count_given_up(before: GroupSnapshot, after: GroupSnapshot) -> int:
    """Return how many instances were given up by lowering the desired capacity.

    Args:
        before: the group when that was decided.
        after: the group as listed after the write.
    """
    newcomers = sum(
        member.counts and id not in before.members for id, member in after.members.items()
    )
    kept = max(0, after.desired - before.counted)
    return max(0, before.pending - max(newcomers, kept))
