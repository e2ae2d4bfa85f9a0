"""Providers that hang, fail, or have bugs, and several groups."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from fleeting.errors import OutcomeUnknown, OutOfCapacity, PermissionDenied, Throttled
from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import Accepted, Instance, Listing, State
from taskscaler import AcquireTimeout, Policy, Settings, Taskscaler, UnknownInstances

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from fleeting.abc import Connection
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))


class NamedGroup(FakeInstanceGroup):
    """A group that names itself in the connect info of its instances."""

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        return replace(await super().connect_info(id), username=self.info.id)


def connect_to(*groups: NamedGroup) -> Callable[[ConnectInfo], Awaitable[Connection]]:
    """Return a function that connects to the instances of several groups."""

    async def connect(info: ConnectInfo) -> Connection:
        group = next(one for one in groups if info.username == one.info.id)
        return await group.connect(info)

    return connect


async def serve(scaler: Taskscaler, *keys: str) -> list[str]:
    """Run tasks at the same time; return the groups on which they ran."""
    groups: list[str] = []
    all_started = anyio.Event()

    async def run(key: str) -> None:
        async with scaler.acquire(key) as acquisition:
            groups.append(acquisition.group)
            if len(groups) == len(keys):
                all_started.set()
            await all_started.wait()

    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(run, key)
    return groups


@pytest.mark.parametrize("method", ["update", "increase", "decrease", "connect_info", "connect"])
async def test_a_hanging_call_blocks_no_other_group(method: Any) -> None:
    """While a call of one group hangs, slots of the other are granted and given back."""
    hanging, good = NamedGroup(id="hanging"), NamedGroup(id="good")
    gate = Gate()
    hanging.always(method, Reply(before=gate))
    good.add()
    if method == "decrease":
        hanging.add(State.FAILED)
    settings = Settings(policy=LAZY, unknown_instances=UnknownInstances.ADOPT)
    async with Taskscaler([hanging, good], settings, connect=connect_to(hanging, good)) as scaler:
        while not scaler.capacity().instances["ready"]:
            await anyio.sleep(1)
        served: list[str] = []

        async def run() -> None:
            async with scaler.acquire("b") as acquisition:
                served.append(acquisition.group)

        async with anyio.create_task_group() as tasks:
            async with scaler.acquire("a") as acquisition:
                assert acquisition.group == "good"
                tasks.start_soon(run)
                await gate.reached()
                await checkpoint()
        if method != "decrease":
            assert served == ["good"]


@pytest.mark.parametrize("method", ["update", "increase"])
async def test_a_call_without_an_answer_times_out(method: Any) -> None:
    """After `operation_timeout` its outcome is unknown until the next listing."""
    group = FakeInstanceGroup()
    group.script(method, Reply(after=Gate()))
    settings = Settings(max_instances=1, operation_timeout=timedelta(seconds=30), policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        assert await serve(scaler, "a") == [group.info.id]
    assert group.largest == 1
    assert len(group.calls_of("increase")) == 1


@pytest.mark.parametrize(
    "reply",
    [Reply(before=Gate()), Reply(error=Throttled("slow down")), Reply(error=KeyError("a"))],  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - that is the bug
)
async def test_steps_after_a_listing_hold_up_nothing(reply: Reply) -> None:
    """The steps that follow from a listing may hang or fail; the next listing tries them again."""
    group = FakeInstanceGroup()
    group.script("reconcile", reply)
    settings = Settings(max_instances=1, operation_timeout=timedelta(seconds=30), policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        assert await serve(scaler, "a") == [group.info.id]
        await group.until(lambda: len(group.calls_of("reconcile")) > 1)
    methods = [call.method for call in group.calls if call.method in {"update", "reconcile"}]
    assert methods[:2] == ["update", "reconcile"]
    assert methods.count("reconcile") <= methods.count("update")


@pytest.mark.parametrize("created", [False, True])
async def test_a_provider_is_asked_what_came_of_a_request_without_an_answer(
    *, created: bool
) -> None:
    """If nothing came of it, the next request follows after a pause and not after minutes."""
    group = FakeInstanceGroup(tells_outcome=True)
    lost = Reply(lost=True) if created else Reply(error=OutcomeUnknown("the reply was lost"))
    group.script("increase", lost)
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        began = anyio.current_time()
        assert await serve(scaler, "a") == [group.info.id]
        assert anyio.current_time() - began < 10
    assert len(group.calls_of("increase")) == (1 if created else 2)
    assert [one.operation for one in group.calls_of("outcome")] == [
        group.calls_of("increase")[0].operation
    ]


@pytest.mark.parametrize("answer", [Throttled("slow down"), KeyError("a bug"), None])
async def test_a_provider_that_does_not_tell_delays_the_next_request(
    answer: Exception | None,
) -> None:
    """Perhaps the instances come; after a tenth of the creation timeout others are requested."""
    group = FakeInstanceGroup()
    group.script("increase", Reply(error=OutcomeUnknown("the reply was lost")))
    group.script("outcome", Reply(error=answer))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - one is a bug
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        began = anyio.current_time()
        assert await serve(scaler, "a") == [group.info.id]
        assert 60 <= anyio.current_time() - began < 70


async def test_a_removal_is_repeated_after_a_lost_answer() -> None:
    """Removals are idempotent, so they are repeated until the instance is gone."""
    group = FakeInstanceGroup()
    group.script("decrease", Reply(before=Gate()), Reply(error=Throttled("slow down")))
    async with Taskscaler([group], connect=group.connect) as scaler:
        await serve(scaler, "a")
        await group.until(lambda: group.size == 0)
    assert len(group.calls_of("decrease")) == 3


@pytest.mark.parametrize("method", ["update", "increase", "decrease", "connect_info", "connect"])
async def test_a_bug_in_a_plugin_does_not_end_the_scaler(method: Any) -> None:
    """A `KeyError` from any method is handled like a lost answer."""
    group = FakeInstanceGroup()
    bug = KeyError("the plugin's author forgot this")
    group.script(method, Reply(error=bug))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - that is the bug
    settings = Settings(creation_timeout=timedelta(minutes=2))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        assert await serve(scaler, "a") == [group.info.id]
        await group.until(lambda: group.size == 0)


class Unreadable(OutOfCapacity):
    """An error whose class has bugs: no text, and no pause because of its own `__init__`."""

    def __init__(self, *, text: str | None = None, **pause: object) -> None:
        self.text = text
        self.__dict__.update(pause)

    @override
    def __str__(self) -> str:
        if self.text is None:
            raise KeyError("the plugin's author forgot this")
        return self.text


class Wordless(Exception):
    """An error of no known class that has no text either."""

    @override
    def __str__(self) -> str:
        raise KeyError("the plugin's author forgot this")


@pytest.mark.parametrize(
    "error",
    [
        Unreadable(retry_after=None),
        Unreadable(text="full"),
        Unreadable(text="full", retry_after="5s"),
        Wordless(),
    ],
)
@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize("method", ["update", "increase", "decrease", "connect_info", "connect"])
async def test_an_error_with_a_bug_does_not_end_the_scaler(
    method: str,
    error: Any,
    raised: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """An error whose text or pause cannot be read is a bug of its plugin, like any other."""
    group = FakeInstanceGroup()
    right = getattr(group, method)
    wrong = [error]

    async def call(*arguments: object) -> object:
        answered = await right(*arguments)
        if not wrong:
            return answered
        error = wrong.pop()
        if isinstance(answered, Accepted) and not raised:
            return Accepted(0, error=error)
        raise error

    setattr(group, method, call)
    settings = Settings(
        max_instances=3,
        delete_instances_on_shutdown=True,
        creation_timeout=timedelta(minutes=2),
    )
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        assert await serve(scaler, "a") == [group.info.id]
    assert wrong == []
    assert group.size == 0


async def test_a_bug_in_closing_a_connection_does_not_end_the_scaler() -> None:
    """The instance is removed even if its connection cannot be closed."""
    group = FakeInstanceGroup()
    settings = Settings(delete_instances_on_shutdown=True)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect() as connection:

            async def close() -> None:
                await checkpoint()
                raise KeyError("the connector's author forgot this")

            connection.aclose = close  # type: ignore[method-assign] # a bug put in
        await group.until(lambda: group.size == 0)


@pytest.mark.parametrize("method", ["update", "increase", "decrease"])
async def test_an_answer_of_the_wrong_type_does_not_end_the_scaler(method: str) -> None:
    """An answer of the wrong type is handled like a lost answer."""
    group = FakeInstanceGroup()
    real = getattr(group, method)
    wrong: list[object] = [None]

    async def answer(*arguments: object) -> object:
        truth = await real(*arguments)
        return wrong.pop() if wrong else truth

    setattr(group, method, answer)
    settings = Settings(max_instances=1)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        assert await serve(scaler, "a") == [group.info.id]
        await group.until(lambda: group.size == 0)
    assert group.largest == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_inside_a_plugin_does_not_end_the_scaler() -> None:
    """On asyncio, a cancelled inner task of a plugin is handled like a lost answer."""
    group = FakeInstanceGroup()
    real = group.increase
    bugs = [asyncio.CancelledError("an inner task of the plugin")]

    async def increase(count: int, operation: str) -> Accepted:
        if bugs:
            raise bugs.pop()
        return await real(count, operation)

    group.increase = increase  # type: ignore[method-assign] # a bug put in
    settings = Settings(max_instances=1, creation_timeout=timedelta(minutes=2))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match="cancelled inside the plugin"):
            async with scaler.acquire("a", timeout=timedelta(seconds=5)):
                pytest.fail("the body must not run")
        served = await serve(scaler, "b")
    # After the block, because the cancellation must not have ended the block either.
    assert served == [group.info.id]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("method", ["connect", "run", "aclose"])
async def test_a_cancellation_inside_a_connector_does_not_end_the_scaler(method: str) -> None:
    """On asyncio, a cancelled inner task of a connector ends neither a task nor the scaler."""
    group = FakeInstanceGroup()
    bugs = [asyncio.CancelledError("an inner task of the connector")]

    async def connect(info: ConnectInfo) -> Connection:
        if method == "connect" and bugs:
            raise bugs.pop()
        connection = await group.connect(info)
        if method != "connect":
            real = getattr(connection, method)

            async def call(*arguments: object) -> object:
                if bugs:
                    raise bugs.pop()
                return await real(*arguments)

            setattr(connection, method, call)
        return connection

    settings = Settings(max_instances=1, instance_ready_command="true", policy=LAZY)
    async with Taskscaler([group], settings, connect=connect) as scaler:
        served = await serve(scaler, "a")
        group.vanish(*[one.id for one in (await group.update()).instances])
        while scaler.capacity().instances["ready"]:
            await anyio.sleep(1)
        served += await serve(scaler, "b")
    assert served == [group.info.id] * 2
    assert bugs == []


@pytest.mark.parametrize("idempotent", [False, True])
async def test_lost_answers_never_exceed_the_limit(idempotent: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Even if many answers are lost, no more than `max_instances` ever exist (I1)."""
    group = FakeInstanceGroup(idempotent=idempotent, pending_updates=2, boot_updates=2)
    group.script("increase", *[Reply(lost=True)] * 5)
    settings = Settings(max_instances=3, creation_timeout=timedelta(minutes=2))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        for _ in range(3):
            await serve(scaler, *"abc")
            await group.until(lambda: group.size == 0)
    assert group.largest == 3


async def test_the_rest_of_a_partial_increase_is_requested_again() -> None:
    """After a pause, a later increase requests what was not accepted."""
    group = FakeInstanceGroup()
    group.script("increase", Reply(accept=1, error=OutOfCapacity("only one today")))
    async with Taskscaler([group], Settings(max_instances=3), connect=group.connect) as scaler:
        await serve(scaler, *"abc")
    assert [call.count for call in group.calls_of("increase")] == [3, 2]
    assert group.largest == 3


async def test_the_next_group_is_used_if_the_first_has_no_capacity() -> None:
    """The second group is used when the first is out of capacity, later the first again."""
    first, second = NamedGroup(id="first"), NamedGroup(id="second")
    first.script("increase", Reply(error=OutOfCapacity("no machine of this kind")))
    groups = [first, second]
    async with Taskscaler(groups, connect=connect_to(*groups)) as scaler:
        assert await serve(scaler, "a") == ["second"]
        await second.until(lambda: second.size == 0)
        await anyio.sleep(600)
        assert await serve(scaler, "b") == ["first"]


async def test_the_next_group_is_used_if_the_first_is_full() -> None:
    """With room for one instance in the first group, the second task runs on the second group."""
    first, second = NamedGroup(id="first", max_size=1), NamedGroup(id="second")
    groups = [first, second]
    async with Taskscaler(groups, connect=connect_to(*groups)) as scaler:
        assert sorted(await serve(scaler, "a", "b")) == ["first", "second"]


async def test_a_missing_permission_is_reported() -> None:
    """The refusal is in the error of the waiting task, and is not retried quickly."""
    group = FakeInstanceGroup()
    group.always("increase", Reply(error=PermissionDenied("the key was revoked")))
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match="the key was revoked"):
            async with scaler.acquire("a", timeout=timedelta(hours=1)):
                pytest.fail("the body must not run")
    assert len(group.calls_of("increase")) < 25


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("update", Listing(instances=None)),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
        ("update", Listing((Instance("i", "running"),))),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
        ("update", Listing(pending=None)),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
        ("update", Listing(failures=("no",))),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
        ("increase", Accepted(1, ids=None)),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
        ("increase", Accepted(None)),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
        ("decrease", Accepted(0, error=ValueError("no"))),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a bug
    ],
)
async def test_an_answer_with_wrong_values_does_not_end_the_scaler(
    method: str, answer: object
) -> None:
    """Values of the wrong type inside an answer cost one attempt, not the scaler."""
    group = FakeInstanceGroup()
    right = getattr(group, method)
    wrong = [answer]

    async def call(*arguments: object) -> object:
        answered = await right(*arguments)
        return wrong.pop() if wrong else answered

    setattr(group, method, call)
    settings = Settings(max_instances=1, delete_instances_on_shutdown=True)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        assert await serve(scaler, "a") == [group.info.id]
    assert wrong == []
    assert group.size == 0
