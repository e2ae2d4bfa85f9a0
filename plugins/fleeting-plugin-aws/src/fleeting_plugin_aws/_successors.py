"""Recognises the instances that AWS launches in the place of others, without being asked.

When AWS ends a member by itself (a spot interruption, a failed health check), it
leaves the desired capacity as it is, and launches another instance. So each such
loss is a vacancy, and the next member that appears fills it:

* A member whose termination this process has requested leaves no vacancy, because
  the request lowers the desired capacity. One that enters standby leaves none either.
* If another program lowers the desired capacity meanwhile, nothing is launched. So
  there are never more vacancies than pending instances.
* Which of several new members fills a vacancy, and which was requested, is not known
  and makes no difference: their numbers are right.

A vacancy is forgotten when the group is closed. Members that AWS launches before it
ends others, to balance zones or ahead of an interruption, are not recognised; the
group's check warns of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting_plugin_aws._standby import STANDBY

if TYPE_CHECKING:
    from collections.abc import Collection

    from fleeting_plugin_aws._states import GroupSnapshot

__all__ = ("Successors",)


class Successors:
    """The vacancies of one group, and who has filled earlier ones."""

    def __init__(self) -> None:
        self._vacant: tuple[str, ...] = ()
        self._predecessors: dict[str, str] = {}
        # Members whose termination was requested, until they are not listed any more.
        self._ending: set[str] = set()

    def expect_end(self, ids: Collection[str]) -> None:
        """Remember that this process is about to terminate members."""
        self._ending.update(ids)

    def expect_no_end(self, ids: Collection[str]) -> None:
        """Forget that, because AWS has refused it."""
        self._ending.difference_update(ids)

    def predecessor(self, id: str) -> str | None:
        """Return the id of the member in whose place AWS launched one; None if it did not."""
        return self._predecessors.get(id)

    def look(self, before: GroupSnapshot, after: GroupSnapshot) -> None:
        """Find who was lost, and who was launched in their place, from one look to the next."""
        vacant = [*self._vacant]
        for id, member in before.members.items():
            now = after.members.get(id)
            stays = now is not None and (now.counts or now.lifecycle_state in STANDBY)
            if member.counts and not stays and id not in self._ending:
                vacant.append(id)
        new = [id for id, one in after.members.items() if one.counts and id not in before.members]
        filled = dict(zip(new, vacant, strict=False))
        self._vacant = tuple(vacant[len(filled) :][: after.pending])
        kept = {id: old for id, old in self._predecessors.items() if id in after.members}
        self._predecessors = kept | filled
        self._ending &= after.members.keys()
