"""For tests: a group of instances in memory, and the contract that every group must keep.

To test code that *drives* groups, use a `FakeInstanceGroup` and script its replies::

    group = FakeInstanceGroup(max_size=4, boot_updates=None)
    group.script("increase", Reply(error=Throttled("slow down")), Reply(accept=1))
    group.script("update", Reply(before=gate))

To test a *provider*, subclass `InstanceGroupContract` in a test file. Only this class
needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.testing._contract.faults import Fault
from fleeting.testing._fakes.connection import (
    Command,
    FakeConnection,
    FakeConnector,
    Handler,
    run_default,
)
from fleeting.testing._fakes.files import FakeFiles
from fleeting.testing._fakes.group import Call, FakeInstanceGroup, Method
from fleeting.testing._fakes.provider import FakeConfig, FakeProvider
from fleeting.testing._fakes.script import Gate, Reply, Script

if TYPE_CHECKING:
    from fleeting.testing._contract.contract import InstanceGroupContract

__all__ = (
    "Call",
    "Command",
    "FakeConfig",
    "FakeConnection",
    "FakeConnector",
    "FakeFiles",
    "FakeInstanceGroup",
    "FakeProvider",
    "Fault",
    "Gate",
    "Handler",
    "InstanceGroupContract",
    "Method",
    "Reply",
    "Script",
    "run_default",
)


def __getattr__(name: str) -> object:
    # Imported late, because fleeting does not require pytest.
    if name == "InstanceGroupContract":
        import importlib.util

        if importlib.util.find_spec("pytest") is None:
            raise ImportError(
                "InstanceGroupContract needs pytest; install it with `pip install pytest`, or "
                "install `fleeting[testing]`"
            )
        from fleeting.testing._contract.contract import InstanceGroupContract

        return InstanceGroupContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
