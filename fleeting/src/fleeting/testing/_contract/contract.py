"""The tests that every group of instances must pass, for authors of providers.

A test file of a provider is this class with one fixture::

    import pytest
    from fleeting.testing import InstanceGroupContract
    from fleeting.types import GroupSettings

    class TestContract(InstanceGroupContract):
        @pytest.fixture
        def open_group(self):
            provider = MyProvider()
            return lambda: provider.open(MyConfig(region="..."), GroupSettings())

The class needs pytest (`fleeting[testing]`). The group may belong to a real cloud or
to a fake of it. The tests do not touch existing instances. Each test removes the
instances that it adds, even after an interruption. No test has more than `affordable`
instances at a time, but a real cloud bills each of them.

An installed plugin can be tested without a test file::

    pytest --fleeting-provider NAME --fleeting-config FILE
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

import fleeting
from fleeting.testing._contract.cancellation import CancellationTests
from fleeting.testing._contract.capabilities import CapabilityTests
from fleeting.testing._contract.checking import CheckTests
from fleeting.testing._contract.closing import ClosingTests
from fleeting.testing._contract.concurrency import ConcurrencyTests
from fleeting.testing._contract.connecting import ConnectTests
from fleeting.testing._contract.listing import ListingTests
from fleeting.testing._contract.secrecy import SecretTests
from fleeting.testing._contract.size import SizeTests

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
    """Tests for the promises of `fleeting.abc.InstanceGroup`.

    Override the fixture `open_group`. If the defaults do not fit, also override the
    attributes, the fixtures `anyio_backend` and `check_provider`, and the methods `connect`
    and `interrupt`.

    Attributes:
        instance_timeout: how long an instance may take to start or to be removed.
        call_timeout: how long a single call may take; a call that takes longer probably
            waits for instances.
        affordable: how many instances a test may have at one time; tests that need
            more are skipped.
        page_size: how many instances one page of the cloud's listing has; 0 if it has
            no pages, None if unknown. The test of pages needs one instance more than
            this, so make pages small if the cloud or its fake allows it.
        cancellation_points: at how many of its awaits each method is cancelled,
            starting with the first, each time in a new call.
        repeats_operations: whether repeating an increase with the same operation adds
            nothing.
        keeps_instances: whether instances still exist after their group is closed and
            opened again.
        can_connect: whether instances can be reached from here.
        command: a command that succeeds on every instance.
        unknown_id: an id that no instance has, in the cloud's format; if several are
            needed, digits replace its last three characters.
        secrets: texts that no message may show, such as a password in the
            configuration; those that `connect_info` returns are added.
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
        """Return the event loop to run on."""
        return "asyncio"

    @pytest.fixture
    def open_group(self) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return what opens the group; override this.

        The tests call it without arguments, some of them more than once. It returns an
        async context manager, as `Provider.open` does.
        """
        raise NotImplementedError("override the fixture open_group in your subclass")

    @pytest.fixture
    def check_provider(self) -> Callable[[], Awaitable[Sequence[Finding]]] | None:
        """Return what calls `Provider.check`; override this to test it, too."""
        return None

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        """Connect to an instance; override this if `fleeting.connect` is not enough."""
        return await fleeting.connect(info)

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        """Make the cloud announce the interruption of an instance; return whether it can.

        Override this if the group has `Capability.WATCH` and the cloud, or its fake, can
        cause an interruption.
        """
        return False
