"""For tests: a group of instances in memory, and the contract that every group must keep.

Who tests something that *drives* groups takes `FakeInstanceGroup` and tells it
what to do::

    group = FakeInstanceGroup(max_size=4, boot_updates=None)
    group.script("increase", Reply(error=Throttled("slow down")), Reply(accept=1))
    group.script("update", Reply(before=gate))

Who writes a *provider* subclasses `InstanceGroupContract` in a test file; that
one class needs pytest, the rest does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.testing._connection import (
    Command,
    FakeConnection,
    FakeConnector,
    Handler,
    run_default,
)
from fleeting.testing._files import FakeFiles
from fleeting.testing._group import Call, FakeInstanceGroup, Method
from fleeting.testing._provider import FakeConfig, FakeProvider
from fleeting.testing._script import Gate, Reply, Script

if TYPE_CHECKING:
    from fleeting.testing._contract import InstanceGroupContract

__all__ = (
    "Call",
    "Command",
    "FakeConfig",
    "FakeConnection",
    "FakeConnector",
    "FakeFiles",
    "FakeInstanceGroup",
    "FakeProvider",
    "Gate",
    "Handler",
    "InstanceGroupContract",
    "Method",
    "Reply",
    "Script",
    "run_default",
)


def __getattr__(name: str) -> object:
    # pytest is no dependency of fleeting, so that only those who name the class need it.
    if name == "InstanceGroupContract":
        from fleeting.testing._contract import InstanceGroupContract

        return InstanceGroupContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
