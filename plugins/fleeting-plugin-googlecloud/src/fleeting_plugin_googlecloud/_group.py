"""An open group: each method sends a request or two and calls a pure function."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
from typing_extensions import override

from fleeting.abc import InstanceGroup
from fleeting.errors import (
    GroupGone,
    InstanceGone,
    InstanceUnhealthy,
    OutcomeUnknown,
    ProviderError,
)
from fleeting.types import Accepted, Capability, Instance, Listing, State
from fleeting_plugin_googlecloud._creation import CreationLog, Names
from fleeting_plugin_googlecloud._errors import Missing, RequestRefused
from fleeting_plugin_googlecloud._members import (
    creation_error,
    member_state,
    pending_count,
    read_managed_group,
)
from fleeting_plugin_googlecloud._notices import find_notices
from fleeting_plugin_googlecloud._requests import (
    BATCH,
    change_members,
    describe_managed_group,
    gather,
    list_members,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence

    from fleeting.types import ConnectInfo, GroupInfo, Notice
    from fleeting_plugin_googlecloud._access import GoogleAccess
    from fleeting_plugin_googlecloud._api import GoogleApi
    from fleeting_plugin_googlecloud._members import ManagedGroup, ManagedMember

__all__ = ("GoogleGroup",)

logger = logging.getLogger("fleeting")

# The age in seconds up to which a listing answers whether an instance works. Groups are listed
# once a minute by default, and asking Google again for each instance would cost more requests.
FRESH_SECONDS = 90.0
# How long a listing may show a member as it was, after its removal was accepted.
LAG_SECONDS = 60.0
# How often `watch` lists the group. A spot instance has 30 seconds from the announcement on.
WATCH_SECONDS = 10.0

# Google's codes for a name that is in use.
_TAKEN = ("ALREADY_EXISTS",)


class GoogleGroup(InstanceGroup):
    """An open managed instance group.

    Args:
        info: describes the group.
        api: sends the requests.
        access: answers how instances are reached.
        group: the group as it was when it was opened.
        members: its members then, by name.
    """

    def __init__(
        self,
        info: GroupInfo,
        api: GoogleApi,
        access: GoogleAccess,
        group: ManagedGroup,
        members: Mapping[str, ManagedMember],
    ) -> None:
        self.info = info
        self._api = api
        self._access = access
        self._group = group
        self._names = Names()
        self._creation = CreationLog(api, members)
        self._looking = anyio.Lock()
        # The members as listed last, and when, in monotonic seconds.
        self._members: Mapping[str, ManagedMember] = members
        self._listed_at = anyio.current_time()
        # The numeric ids of members whose removal was accepted, and until when that outweighs a
        # listing, in monotonic seconds.
        self._removed: dict[str, tuple[str, float]] = {}
        self._unknown_states: set[tuple[str, str, str]] = set()
        self._told_gone = False
        # Set once the group is another one of the same name, which is not ours to change.
        self._replaced: GroupGone | None = None

    @override
    async def update(self) -> Listing:
        try:
            group, members = await self._look()
        except GroupGone as error:
            if not self._members:
                raise
            # Google deletes the instances of a group together with it.
            if not self._told_gone:
                self._told_gone = True
                logger.warning("%s", error)
            return Listing()
        failures = await self._creation.failures(members)
        return Listing(
            tuple(self._listed(one) for one in members.values()),
            pending_count(group, members.values()),
            failures,
        )

    @override
    async def reconcile(self, listing: Listing) -> None:
        """Cancel the creation of instances that cannot be created; see `InstanceGroup.reconcile`.

        The group would try for ever, and an instance would come when nothing waits for it.
        """
        del listing  # The members behind it say more.
        hopeless = [
            one for one in self._members.values() if creation_error(one, self.info.id) is not None
        ]
        if hopeless:
            await self._delete(hopeless)

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        if self._replaced is not None:
            raise self._replaced
        names = self._names.choose(self._group.base_name, operation, count, self._members)
        created: tuple[str, ...] = ()
        for start in range(0, count, BATCH):
            try:
                created += await self._create(names[start : start + BATCH], f"{operation}\0{start}")
            except ProviderError as error:
                if not created or isinstance(error, OutcomeUnknown):
                    raise
                return Accepted(len(created), created, error)
        return Accepted(count, created)

    async def _create(self, names: Sequence[str], seed: str) -> tuple[str, ...]:
        """Create instances with these names, or others if these are taken; return the names."""
        instances = [{"name": name} for name in names]
        try:
            await change_members(self._api, "create_instances", instances, seed)
        except RequestRefused as error:
            if not any(part in error.code for part in _TAKEN):
                raise
        else:
            return tuple(names)
        # Members that have the names of this operation are its own: an earlier request created
        # them. The other names are taken by something else.
        members = await list_members(self._api)
        present = tuple(name for name in names if name in members)
        missing = len(names) - len(present)
        if missing:
            base, operation = self._group.base_name, seed.partition("\0")[0]
            others = self._names.replace(base, operation, missing, {*names, *members})
            instances = [{"name": name} for name in others]
            await change_members(self._api, "create_instances", instances, f"{seed}\0again")
            present += others
        return present

    @override
    async def outcome(self, operation: str) -> int | None:
        members = await list_members(self._api)
        names = self._names.of(self._group.base_name, operation)
        return sum(name in members for name in names)

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        wanted = tuple(dict.fromkeys(ids))
        if not wanted or self._replaced is not None:
            # The instances of the group that was opened are gone together with it.
            return Accepted(len(wanted), wanted)
        try:
            there = [one for one in await self._known(wanted) if not one.is_ending]
            if there:
                await self._delete(there)
        except GroupGone:
            if not self._members:
                raise
        return Accepted(len(wanted), wanted)

    async def _delete(self, members: Sequence[ManagedMember]) -> None:
        """Delete members. Those that are gone, or being deleted, do not prevent that.

        Raises:
            ProviderError: not all are deleted.
        """
        seed = uuid.uuid4().hex
        # One request must not have both paths and names, and queued members have names only.
        for names in (
            [one.path for one in members if one.url],
            [one.name for one in members if not one.url],
        ):
            if names:
                await self._delete_named(names, seed)
        until = anyio.current_time() + LAG_SECONDS
        self._removed |= {one.name: (one.number, until) for one in members}

    async def _delete_named(self, names: Sequence[str], seed: str) -> None:
        options = {"skip_instances_on_validation_error": True}
        try:
            await change_members(self._api, "delete_instances", names, seed, **options)
        except (RequestRefused, Missing):
            # Google may refuse a request of which nothing is left to delete.
            members = await list_members(self._api)
            left = [
                name
                for name in names
                if (member := members.get(name.rpartition("/")[2])) is not None
                and not member.is_ending
            ]
            if left:
                raise

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        member = await self._member(id)
        _require_staying(member)
        if not member.number or not member.zone:
            raise InstanceUnhealthy(id, f"instance {id} is being created and does not exist yet")
        return await self._access.connect_info(member)

    @override
    async def heartbeat(self, id: str) -> None:
        member = await self._member(id)
        _require_staying(member)
        if not member.healthy:
            raise InstanceUnhealthy(id, f"the health check of the group fails for instance {id}")
        state = member_state(member, self.info.id)
        if state.state in {State.DELETING, State.FAILED}:
            raise InstanceUnhealthy(id, f"instance {id} does not run: {state.reason}")

    @override
    async def suspend(self, ids: Sequence[str]) -> Accepted:
        done = {State.SUSPENDING, State.SUSPENDED}
        return await self._move("suspend_instances", ids, State.RUNNING, done, force_suspend=True)

    @override
    async def resume(self, ids: Sequence[str]) -> Accepted:
        done = {State.RESUMING, State.RUNNING}
        return await self._move("resume_instances", ids, State.SUSPENDED, done)

    async def _move(
        self, method: str, ids: Sequence[str], origin: State, done: set[State], **options: object
    ) -> Accepted:
        """Suspend or resume those members that are in a state; some of the others are done."""
        _, members = await self._look()
        states = {
            id: member_state(members[id], self.info.id).state if id in members else None
            for id in ids
        }
        chosen = [members[id] for id, state in states.items() if state is origin]
        if chosen:
            self._access.forget_answers([one.number for one in chosen])
            paths = [one.path for one in chosen]
            await change_members(self._api, method, paths, uuid.uuid4().hex, **options)
        accepted = tuple(id for id, state in states.items() if state is origin or state in done)
        others = [
            f"{id} ({state.value if state else 'gone'})"
            for id, state in states.items()
            if id not in accepted
        ]
        if not others:
            return Accepted(len(accepted), accepted)
        error = ProviderError(
            f"{method.partition('_')[0]} is not possible now for instances of group "
            f"{self.info.id}: {', '.join(others)}"
        )
        if not accepted:
            raise error
        return Accepted(len(accepted), accepted, error)

    @override
    def watch(self) -> AsyncIterator[Notice]:
        if Capability.WATCH not in self.info.capabilities:
            return super().watch()
        return self._watch()

    async def _watch(self) -> AsyncGenerator[Notice]:
        announced: set[tuple[str, str]] = set()
        while True:
            members = await list_members(self._api)
            for number, notice in find_notices(members.values(), datetime.now(UTC)):
                if (number, notice.reason) not in announced:
                    announced.add((number, notice.reason))
                    yield notice
            await anyio.sleep(WATCH_SECONDS)

    async def _look(self) -> tuple[ManagedGroup, Mapping[str, ManagedMember]]:
        """List the group; both requests are sent at the same time.

        Raises:
            GroupGone: the group does not exist, or is another one of the same name.
            ProviderError: Google did not answer.
        """
        described: dict[str, Any]
        members: dict[str, ManagedMember]
        described, members = await gather(
            lambda: describe_managed_group(self._api), lambda: list_members(self._api)
        )
        group = read_managed_group(described)
        if group.number != self._group.number:
            self._replaced = GroupGone(
                f"group {self.info.id} was deleted and created again (its id was "
                f"{self._group.number}, and is {group.number} now); restart the manager to use the "
                "new one"
            )
            raise self._replaced
        self._group = group
        self._remember(members)
        return group, members

    def _remember(self, members: Mapping[str, ManagedMember]) -> None:
        self._members = members
        self._listed_at = anyio.current_time()
        self._removed = {id: at for id, at in self._removed.items() if id in members}
        self._access.keep({one.number for one in members.values() if not one.is_ending})

    async def _known(self, ids: Iterable[str]) -> list[ManagedMember]:
        """Return the members among these ids; lists the group if one is not known."""
        if any(id not in self._members for id in ids):
            self._remember(await list_members(self._api))
        return [self._members[id] for id in ids if id in self._members]

    async def _member(self, id: str) -> ManagedMember:
        """Return a member as listed a moment ago; concurrent callers share one request.

        Raises:
            InstanceGone: the instance is not a member.
        """
        if not self._is_fresh(id):
            async with self._looking:
                if not self._is_fresh(id):
                    self._remember(await list_members(self._api))
        member = self._members.get(id)
        if member is None:
            raise InstanceGone(id, f"there is no instance {id} in group {self.info.id}")
        return member

    def _is_fresh(self, id: str) -> bool:
        member = self._members.get(id)
        age = anyio.current_time() - self._listed_at
        return member is not None and bool(member.number) and age < FRESH_SECONDS

    def _listed(self, member: ManagedMember) -> Instance:
        """Return how a listing shows a member."""
        number, until = self._removed.get(member.name, ("", 0.0))
        if number == member.number and anyio.current_time() < until:
            # The listing is behind Google's own answer.
            return Instance(member.name, State.DELETING, member.number or None)
        state, reason, known = member_state(member, self.info.id)
        words = member.action, member.status, member.target
        if not known and words not in self._unknown_states:
            self._unknown_states.add(words)
            logger.warning(
                "group %s has an instance in a state that this version does not know (action %r, "
                "status %r, target %r); the instance is left alone until its state changes",
                self.info.id,
                *words,
            )
        return Instance(member.name, state, member.number or None, reason)


def _require_staying(member: ManagedMember) -> None:
    if member.is_ending:
        raise InstanceUnhealthy(
            member.name, f"instance {member.name} is being removed ({member.action})"
        )
