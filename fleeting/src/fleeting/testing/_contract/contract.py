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
from fleeting.testing._contract.ids import IdTests
from fleeting.testing._contract.listing import ListingTests
from fleeting.testing._contract.secrecy import SecretTests
from fleeting.testing._contract.settling import SettlingTests
from fleeting.testing._contract.size import SizeTests
from fleeting.testing._contract.trouble import TroubleTests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._contract.faults import Fault
    from fleeting.types import ConnectInfo, Finding

__all__ = ("InstanceGroupContract",)


@pytest.mark.anyio
class InstanceGroupContract(
    ListingTests,
    IdTests,
    SizeTests,
    SettlingTests,
    TroubleTests,
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
    attributes, the fixtures `anyio_backend` and `check_provider`, and the methods `connect`,
    `interrupt`, `fault`, `exists` and `requests`.

    Attributes:
        instance_timeout: how long an instance may take to start or to be removed.
        call_timeout: how long a single call may take; a call that takes longer probably
            waits for instances.
        lag: how long a listing may be behind the other answers of the cloud.
        frugal: whether to make few requests: fewer cancellations and repetitions, and a second
            or more between two looks at the group. For clouds that limit requests by the hour.
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
        foreign_id: an instance that exists in the same account and is not in the group, made for
            this purpose: a provider that is wrong may remove it. Empty if there is none.
        retry_after: how long the cloud asks to wait when `fault` causes `Fault.THROTTLED`; None
            if it does not say.
        secrets: texts that no message may show, such as a password in the
            configuration; those that `connect_info` returns are added.
    """

    instance_timeout = timedelta(minutes=10)
    call_timeout = timedelta(minutes=1)
    lag = timedelta(0)
    frugal = False
    affordable = 12
    page_size: int | None = None
    cancellation_points = 20
    repeats_operations = False
    keeps_instances = True
    can_connect = True
    command = "true"
    unknown_id = "no-such-instance"
    foreign_id = ""
    retry_after: timedelta | None = None
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

    @override
    async def fault(self, group: InstanceGroup | None, kind: Fault) -> bool:
        """Make something go wrong with the next request to the cloud; return whether it can.

        Override this if the provider is tested against a fake of the cloud. The fake need not
        know every kind. `group` is None before the group is opened. The tests end with
        `Fault.NONE`.
        """
        return False

    @override
    async def exists(self, id: str) -> bool | None:
        """Return whether an instance exists in the cloud, of this group or not; None if unknown.

        Override this if the cloud or its fake can tell, without the provider.
        """
        return None

    @override
    def requests(self) -> int | None:
        """Return how many requests the cloud has got since it began to count; None if unknown.

        Override this if the cloud or its fake counts them; `--fleeting-table` prints the sum.
        """
        return None
