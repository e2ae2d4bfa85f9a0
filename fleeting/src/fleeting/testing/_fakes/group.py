"""A group of instances in memory, whose behaviour a test controls.

Theory of operation. The group is a dictionary of members, and time in it is
counted in listings: getting an id, booting and being removed each take a number of
calls of `update`, or last until the test ends them. Each method does its work in one
step without an await; replies (`script.py`) act before and after that step only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from typing_extensions import override

from fleeting.abc import InstanceGroup
from fleeting.errors import (
    FleetingError,
    InstanceGone,
    InstanceUnhealthy,
    OutOfCapacity,
    ProviderError,
    QuotaExceeded,
    Unreachable,
)
from fleeting.testing._fakes.connection import FakeConnector
from fleeting.testing._fakes.script import Reply, Script, Signal
from fleeting.types import (
    Accepted,
    Capability,
    ConnectInfo,
    CreationFailure,
    GroupInfo,
    Instance,
    Listing,
    Notice,
    State,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
    from typing import Self

    from fleeting.testing._fakes.connection import FakeConnection

__all__ = ("Call", "FakeInstanceGroup", "Method")

Method = Literal[
    "update",
    "reconcile",
    "increase",
    "outcome",
    "decrease",
    "connect_info",
    "heartbeat",
    "suspend",
    "resume",
    "watch",
    "connect",
]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the group has received, successful or not.

    Attributes:
        method: the name of the method.
        ids: the instances that it is about.
        count: the count of an increase.
        operation: the operation of an increase, or the one that `outcome` is about.
    """

    method: Method
    ids: tuple[str, ...] = ()
    count: int = 0
    operation: str = ""


@dataclass(slots=True)
class _Member:
    """An instance, and its next state.

    Attributes:
        instance: as the listing shows it.
        listings: in how many more listings it keeps its state; None for ever.
        then: its next state; None if it is gone then.
    """

    instance: Instance
    listings: int | None = None
    then: State | None = None


class FakeInstanceGroup(InstanceGroup):
    """A group without real instances, for tests of code that drives groups.

    The arguments set how the group usually behaves. `script` and `always` set how calls
    are answered. The other methods change the instances, as a cloud would. Works on every
    event loop that anyio supports, needs no opening or closing, and takes no time unless a
    reply says so.

    Args:
        id: the id of the group.
        max_size: the largest size of the group; None for no limit.
        capabilities: the capabilities of the group.
        idempotent: whether repeating an increase with the same operation adds nothing.
        tells_outcome: whether it can tell later what an increase created.
        pending_updates: in how many listings a new instance only counts as pending;
            None until `assign`.
        boot_updates: in how many listings it is then `CREATING`; None until `boot`.
        removal_updates: in how many listings a removed instance is `DELETING`; None
            until `vanish`.
        connector: makes the connections; by default one that plays `run_default`.

    Attributes:
        calls: every call, in order.
        largest: the largest size that the group has had, including pending instances and
            those being removed.
        unhealthy: ids whose heartbeat fails in every state.
        connector: makes the connections.
    """

    def __init__(
        self,
        *,
        id: str = "fake/group",
        max_size: int | None = None,
        capabilities: Collection[Capability] = (),
        idempotent: bool = True,
        tells_outcome: bool = False,
        pending_updates: int | None = 0,
        boot_updates: int | None = 0,
        removal_updates: int | None = 0,
        connector: FakeConnector | None = None,
    ) -> None:
        self.info = GroupInfo(
            id=id,
            max_size=max_size,
            version="1.0.0",
            capabilities=frozenset(capabilities),
            private=True,
        )
        self.calls: list[Call] = []
        self.largest = 0
        self.unhealthy: set[str] = set()
        self.connector = connector or FakeConnector()
        self._idempotent = idempotent
        self._tells_outcome = tells_outcome
        self._pending_updates = pending_updates
        self._boot_updates = boot_updates
        self._removal_updates = removal_updates
        self._members: dict[str, _Member] = {}
        # For each pending instance: the listings until it gets an id, and the state it keeps.
        self._pending: list[tuple[int | None, State | None]] = []
        self._failures: list[CreationFailure] = []
        self._operations: dict[str, Accepted] = {}
        self._notices: list[Notice | ProviderError] = []
        self._made = 0
        self._changed = Signal()
        self._replies = {method: Script() for method in get_args(Method)}
        self._replies["connect"] = self.connector.replies

    # Replies to calls.

    def script(self, method: Method, *replies: Reply) -> None:
        """Set the replies to the next calls of a method, one for each call.

        For `connect` and `watch`, only `before` and `error` apply. For `watch`, each reply
        is for one notice.
        """
        self._replies[method].add(*replies)

    def always(self, method: Method, reply: Reply) -> None:
        """Set the reply to all calls of a method that have no scripted reply."""
        self._replies[method].usual = reply

    def calls_of(self, method: Method) -> list[Call]:
        """Return the calls of one method, in order."""
        return [call for call in self.calls if call.method == method]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is checked after each call and each change."""
        await self._changed.until(condition)

    # Changes by the cloud.

    @property
    def listing(self) -> Listing:
        """Return the current listing, without recording a call or ageing instances."""
        return Listing(
            instances=tuple(member.instance for member in self._members.values()),
            pending=len(self._pending),
            failures=tuple(self._failures),
        )

    @property
    def size(self) -> int:
        """Return the number of instances in all states, including pending ones."""
        return len(self._members) + len(self._pending)

    def add(self, state: State = State.RUNNING) -> str:
        """Add an instance that was not requested, and return its id."""
        id = self._create(state)
        self._note()
        return id

    def set_state(self, id: str, state: State, reason: str | None = None) -> None:
        """Put an instance into a state that it keeps."""
        member = self._members[id]
        member.instance = replace(member.instance, state=state, reason=reason)
        member.listings = None
        if state is not State.RUNNING:
            self.connector.break_(id, f"it is {state.value}")
        self._note()

    def boot(self, *ids: str) -> None:
        """Finish booting these instances; without ids, all that are being created."""
        creating = [id for id in self._members if self._has(id, State.CREATING)]
        for id in ids or creating:
            self.set_state(id, State.RUNNING)

    def vanish(self, *ids: str) -> None:
        """Remove instances without a request."""
        for id in ids:
            del self._members[id]
            self.connector.break_(id, "it is gone")
        self._note()

    def recreate(self, id: str) -> None:
        """Replace an instance by a new one with the same id and another incarnation."""
        self.connector.break_(id, "it was recreated")
        self._create(State.CREATING, id)
        self._note()

    def assign(self) -> None:
        """Give every pending instance its id."""
        self._pending = [(0, keep) for _, keep in self._pending]
        self._assign_due()
        self._note()

    def give_up(self, error: ProviderError) -> None:
        """Drop the pending instances; all later listings report a failure for each."""
        for _ in self._pending:
            self._failures.append(CreationFailure(f"failure-{len(self._failures) + 1}", error))
        self._pending.clear()
        self._note()

    def announce(self, notice: Notice | ProviderError) -> None:
        """Send a notice to all current and future watchers; an error ends their watches."""
        self._notices.append(notice)
        self._note()

    # The contract.

    @override
    async def update(self) -> Listing:
        reply = await self._enter(Call("update"))
        self._assign_due()
        self._pass_time()
        listing = self.listing
        if reply.listing is not None:
            listing = reply.listing(listing)
        await self._leave("update", reply)
        return listing

    @override
    async def reconcile(self, listing: Listing) -> None:
        reply = await self._enter(Call("reconcile"))
        await self._leave("reconcile", reply)

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        reply = await self._enter(Call("increase", count=count, operation=operation))
        if self._idempotent and operation in self._operations:
            accepted = self._operations[operation]
        else:
            accepted = self._operations[operation] = self._increase(count, reply)
        await self._leave("increase", reply)
        return accepted

    @override
    async def outcome(self, operation: str) -> int | None:
        reply = await self._enter(Call("outcome", operation=operation))
        await self._leave("outcome", reply)
        if not self._tells_outcome:
            return None
        accepted = self._operations.get(operation)
        return 0 if accepted is None else accepted.count

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        reply = await self._enter(Call("decrease", ids=tuple(ids)))
        accepted = _accept(ids, reply)
        for id in accepted.ids:
            member = self._members.get(id)
            if member is not None and member.instance.state is not State.DELETING:
                self._turn(id, State.DELETING, self._removal_updates, None)
                self.connector.break_(id, "it is being removed")
        await self._leave("decrease", reply)
        return accepted

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        reply = await self._enter(Call("connect_info", ids=(id,)))
        state = self._instance(id).state
        if state is not State.RUNNING:
            raise InstanceUnhealthy(id, f"instance {id} is {state.value}, so it cannot be reached")
        await self._leave("connect_info", reply)
        return ConnectInfo(id=id, protocol="fake", internal_address=f"{id}.invalid", port=1)

    @override
    async def heartbeat(self, id: str) -> None:
        reply = await self._enter(Call("heartbeat", ids=(id,)))
        instance = self._instance(id)
        if id in self.unhealthy or instance.state in {State.FAILED, State.DELETING}:
            raise InstanceUnhealthy(id, f"instance {id} is not working ({instance.state.value})")
        await self._leave("heartbeat", reply)

    @override
    async def suspend(self, ids: Sequence[str]) -> Accepted:
        if Capability.SUSPEND not in self.info.capabilities:
            return await super().suspend(ids)
        reply = await self._enter(Call("suspend", ids=tuple(ids)))
        accepted = _accept(ids, reply)
        for id in accepted.ids:
            if self._has(id, State.CREATING, State.RUNNING, State.RESUMING):
                self._turn(id, State.SUSPENDING, 0, State.SUSPENDED)
                self.connector.break_(id, "it is being suspended")
        await self._leave("suspend", reply)
        return accepted

    @override
    async def resume(self, ids: Sequence[str]) -> Accepted:
        if Capability.SUSPEND not in self.info.capabilities:
            return await super().resume(ids)
        reply = await self._enter(Call("resume", ids=tuple(ids)))
        accepted = _accept(ids, reply)
        for id in accepted.ids:
            if self._has(id, State.SUSPENDING, State.SUSPENDED):
                self._turn(id, State.RESUMING, self._boot_updates, State.RUNNING)
        await self._leave("resume", reply)
        return accepted

    @override
    def watch(self) -> AsyncIterator[Notice]:
        if Capability.WATCH not in self.info.capabilities:
            return super().watch()
        self._record(Call("watch"))
        return _Notices(self._notice)

    async def connect(self, info: ConnectInfo) -> FakeConnection:
        """Connect to an instance of this group; the counterpart of `fleeting.connect`.

        Raises:
            Unreachable: the instance does not run.
        """
        self._record(Call("connect", ids=(info.id,)))
        connection = await self.connector.connect(info)
        if not self._has(info.id, State.RUNNING):
            await connection.aclose()
            raise Unreachable(f"instance {info.id} is not running, so it cannot be reached")
        return connection

    # Implementation.

    async def _enter(self, call: Call) -> Reply:
        self._record(call)
        return await self._replies[call.method].enter()

    async def _leave(self, method: Method, reply: Reply) -> None:
        self._note()
        await self._replies[method].leave(reply)

    async def _notice(self, index: int) -> Notice:
        await self._replies["watch"].enter()
        await self._changed.until(lambda: len(self._notices) > index)
        notice = self._notices[index]
        if isinstance(notice, ProviderError):
            raise notice
        return notice

    def _record(self, call: Call) -> None:
        self.calls.append(call)
        self._changed.notify()

    def _note(self) -> None:
        self.largest = max(self.largest, self.size)
        self._changed.notify()

    def _instance(self, id: str) -> Instance:
        if id not in self._members:
            raise InstanceGone(id, f"instance {id} does not exist in group {self.info.id}")
        return self._members[id].instance

    def _has(self, id: str, *states: State) -> bool:
        return id in self._members and self._members[id].instance.state in states

    def _turn(self, id: str, now: State, listings: int | None, then: State | None) -> None:
        member = self._members[id]
        member.instance = replace(member.instance, state=now, reason=None)
        member.listings, member.then = listings, then

    def _increase(self, count: int, reply: Reply) -> Accepted:
        limit, error = self.info.max_size, reply.error
        accepted = count if reply.accept is None else min(reply.accept, count)
        if limit is not None and self.size + accepted > limit:
            accepted = max(0, limit - self.size)
            error = QuotaExceeded(f"group {self.info.id} is limited to {limit} instances")
        if accepted == 0 and error is not None:
            raise error
        ids = self._create_many(accepted if reply.create is None else reply.create, reply.become)
        return Accepted(accepted, tuple(ids[:accepted]), error=_rest(count - accepted, error))

    def _create_many(self, count: int, keep: State | None) -> list[str]:
        if self._pending_updates == 0:
            return [self._create_kept(keep) for _ in range(count)]
        self._pending += [(self._pending_updates, keep)] * count
        return []

    def _create_kept(self, keep: State | None) -> str:
        id = self._create(State.CREATING)
        if keep is not None:
            self._turn(id, keep, None, None)
        return id

    def _create(self, state: State, id: str | None = None) -> str:
        self._made += 1
        id = id or f"i-{self._made}"
        self._members[id] = _Member(Instance(id, state, incarnation=str(self._made)))
        if state is State.CREATING:
            self._turn(id, state, self._boot_updates, State.RUNNING)
        return id

    def _pass_time(self) -> None:
        """Age everything by one listing."""
        for id, member in list(self._members.items()):
            if member.listings == 0:
                if member.then is None:
                    del self._members[id]
                else:
                    self._turn(id, member.then, None, None)
            elif member.listings is not None:
                member.listings -= 1

    def _assign_due(self) -> None:
        pending, self._pending = self._pending, []
        for listings, keep in pending:
            if listings == 0:
                self._create_kept(keep)
            else:
                self._pending.append((listings and listings - 1, keep))


class _Notices:
    """The iterator of a watch; it needs no closing."""

    def __init__(self, get: Callable[[int], Awaitable[Notice]]) -> None:
        self._get = get
        self._seen = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice:
        notice = await self._get(self._seen)
        self._seen += 1
        return notice


def _accept(ids: Sequence[str], reply: Reply) -> Accepted:
    asked = tuple(dict.fromkeys(ids))
    accepted = asked if reply.accept is None else asked[: reply.accept]
    if asked and not accepted and reply.error is not None:
        raise reply.error
    return Accepted(len(accepted), accepted, error=_rest(len(asked) - len(accepted), reply.error))


def _rest(refused: int, error: FleetingError | None) -> ProviderError | None:
    """Return why some instances were not accepted; None if all were."""
    if refused == 0:
        return None
    if isinstance(error, ProviderError):
        return error
    return OutOfCapacity("no capacity for the rest; try again later")
