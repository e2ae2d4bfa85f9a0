"""The tests that every group of instances must pass; for the authors of providers.

A test file of a provider is this class with one fixture::

    import pytest
    from fleeting.testing import InstanceGroupContract
    from fleeting.types import GroupSettings

    class TestContract(InstanceGroupContract):
        @pytest.fixture
        def open_group(self):
            provider = MyProvider()
            return lambda: provider.open(MyConfig(region="..."), GroupSettings())

It needs pytest, as `fleeting[testing]` brings it, and runs against whatever
that opens: the real cloud, or a fake of it. Instances that are there already
are left alone; those that a test adds, it removes, also when it is interrupted.
No test has more than `affordable` of them at a time, but a real cloud bills each.

For a plugin that is installed there is no test file to write::

    pytest --fleeting-provider NAME --fleeting-config FILE
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

import fleeting
from fleeting.testing._contract_size import ListingTests, SizeTests
from fleeting.testing._contract_trouble import CancellationTests, ClosingTests, ConcurrencyTests
from fleeting.testing._contract_use import CapabilityTests, CheckTests, ConnectTests, SecretTests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, Finding

__all__ = ("InstanceGroupContract",)


@pytest.mark.anyio
class InstanceGroupContract(
    ListingTests,
    SizeTests,
    ConnectTests,
    CapabilityTests,
    ConcurrencyTests,
    CancellationTests,
    ClosingTests,
    SecretTests,
    CheckTests,
):
    """The promises of `fleeting.abc.InstanceGroup`, a test or some for each.

    Override the fixture `open_group`, and what else does not fit: the attributes, the
    fixtures `anyio_backend` and `check_provider`, the methods `connect` and `interrupt`.

    Attributes:
        instance_timeout: how long an instance may take to come up or to go away.
        call_timeout: how long a single call may take; a call that waits for
            instances takes longer.
        affordable: how many instances a test may have at most at one time; tests
            that need more, such as that of a full group, are skipped.
        page_size: how many instances one page of the cloud's listing has; 0 if there
            are no pages, None if that is not known. Make pages small where you can,
            so that one more instance than that is affordable.
        cancellation_points: at how many of its awaits each method is cancelled, from
            the first on; each time with a call of its own.
        repeats_operations: whether an increase that is repeated with the same
            operation adds nothing.
        keeps_instances: whether instances are still there when their group is
            closed and opened again.
        can_connect: whether the instances can be reached from here.
        command: a command that every instance can run with success.
        unknown_id: the id of no instance, in the form that the cloud demands; its
            last three characters are replaced by digits where several are needed.
        secrets: texts that no message may show, such as a password in the
            configuration; those that `connect_info` returns are known.
    """

    instance_timeout = timedelta(minutes=10)
    call_timeout = timedelta(minutes=1)
    affordable = 5
    page_size: int | None = None
    cancellation_points = 20
    repeats_operations = False
    keeps_instances = True
    can_connect = True
    command = "true"
    unknown_id = "no-such-instance"
    secrets: Sequence[str] = ()

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Return the event loop to run on; override it as you like."""
        return "asyncio"

    @pytest.fixture
    def open_group(self) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return what opens the group; override this.

        It is called without arguments, more than once in some tests, and returns an
        async context manager, such as `Provider.open` does.
        """
        raise NotImplementedError("override the fixture open_group in your subclass")

    @pytest.fixture
    def check_provider(self) -> Callable[[], Awaitable[Sequence[Finding]]] | None:
        """Return what calls `Provider.check`; override it to have that tested, too."""
        return None

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        """Connect to an instance; override it if that needs more than `fleeting.connect`."""
        return await fleeting.connect(info)

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        """Have the cloud announce that it takes an instance away; return whether it can.

        Override it if your group can be watched and there is a way to do this, such as
        that of a fake.
        """
        return False
