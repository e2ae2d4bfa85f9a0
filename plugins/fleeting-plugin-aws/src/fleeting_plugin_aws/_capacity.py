"""How the number of instances that a group should have is changed.

AWS keeps one number, the desired capacity, which everybody sets as a whole: so
it is read before each write, and one write of ours is under way at a time. It
is never lowered to remove instances, because AWS would choose which.

**Making it larger.** The new number is counted from the members that are there
if they are more than desired, which can be after a launch that had been given
up. AWS refuses a number above `MaxSize` as a whole, so we ask for what fits.

**Taking back what does not come.** When a launch fails, the desired capacity
stays high: AWS tries again, for ever. Whoever is told that an instance will not
come asks for another one elsewhere, so before we say so it must be true, and
we lower the desired capacity to what is there. That is done only when

* a launch has failed since we last asked for more, and has had its time to be
  made good, in another zone for instance: `launch_patience`;
* no launch is under way whose instance is not there yet: what is still coming is
  left to come;
* every member that counts is protected from scale-in. An instance can come at
  the very moment at which we write, and then there is one more than desired.
  AWS ends one of those that are not protected; and since those that were there
  are, that can only be the newcomer itself, on which no task can be yet. If it
  is protected, too, none is ended: the second look, after the write, sees it,
  and one loss less is reported.

Where a member is not protected we leave the number alone, and what is missing
stays pending. The check of the group says which command protects them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from fleeting_plugin_aws._activities import Activity
    from fleeting_plugin_aws._states import Member, Snapshot

__all__ = (
    "Growth",
    "Removal",
    "is_final",
    "is_protected",
    "lost",
    "lowered",
    "plan_growth",
    "plan_removal",
)


class Growth(NamedTuple):
    """How to make a group larger.

    Attributes:
        accepted: by how many instances.
        desired: the number to set.
    """

    accepted: int
    desired: int


class Removal(NamedTuple):
    """How to remove instances.

    Attributes:
        done: ids that need no request: they are going, gone, or no members.
        shrink: ids to terminate, lowering the desired capacity with each.
        release: ids to terminate without that: they do not count.
        refused: ids whose removal would bring the group below `MinSize`.
    """

    done: tuple[str, ...]
    shrink: tuple[str, ...]
    release: tuple[str, ...]
    refused: tuple[str, ...]


def plan_growth(group: Snapshot, count: int) -> Growth:
    """Return how much of a growth fits, and which capacity to set for it."""
    base = max(group.desired, group.counted)
    accepted = max(0, min(count, group.maximum - base))
    return Growth(accepted, base + accepted)


def plan_removal(group: Snapshot, ids: Sequence[str]) -> Removal:
    """Return what to do about each id.

    An instance in standby does not count, and its desired capacity was lowered when it
    entered; to lower that again could make AWS end a member that works. One that is
    retained after its termination does not count either. And of members that are more
    than desired, as many can go as there are too many.
    """
    done: list[str] = []
    shrink: list[str] = []
    release: list[str] = []
    for id in dict.fromkeys(ids):
        member = group.members.get(id)
        if member is None:
            done.append(id)
        elif member.life.counts:
            shrink.append(id)
        elif _waits_for_us(member):
            release.append(id)
        else:
            done.append(id)
    surplus = max(0, group.counted - group.desired)
    release += shrink[:surplus]
    del shrink[:surplus]
    room = max(0, group.desired - group.minimum)
    return Removal(tuple(done), tuple(shrink[:room]), tuple(release), tuple(shrink[room:]))


def _waits_for_us(member: Member) -> bool:
    return member.lifecycle in {"EnteringStandby", "Standby", "Terminating:Retained"}


def is_protected(group: Snapshot) -> bool:
    """Return whether AWS could choose none of the members that are there."""
    return all(member.protected for member in group.members.values() if member.life.counts)


def is_final(
    group: Snapshot,
    activities: Sequence[Activity],
    since: datetime,
    patience: timedelta,
    now: datetime,
) -> bool:
    """Return whether what is missing of a group can be said not to come.

    Args:
        group: as it is.
        activities: the newest of its history.
        since: when we last asked for more.
        patience: how long a failed launch may be made good.
        now: like all the times here, by the cloud's clock.
    """
    coming = any(one.is_launching and one.instance not in group.members for one in activities)
    failed = [one for one in activities if one.is_failed_launch and one.started >= since]
    if coming or not failed:
        return False
    # The cloud's clock, as it comes with an answer, has whole seconds.
    return max(one.ended for one in failed).replace(microsecond=0) + patience <= now


def lowered(group: Snapshot) -> int:
    """Return the capacity that takes back what is missing of a group."""
    return min(group.desired, max(group.counted, group.minimum))


def lost(before: Snapshot, after: Snapshot) -> int:
    """Return how many instances will not come, after the desired capacity was lowered.

    Args:
        before: the group as it was when it was decided to lower it.
        after: the group as it was seen after that.
    """
    newcomers = sum(
        member.life.counts and id not in before.members for id, member in after.members.items()
    )
    kept = max(0, after.desired - before.counted)
    return max(0, before.pending - max(newcomers, kept))
