"""The parts of the fake cloud that its answers are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gce_agent import GuestAgent
from gce_engine import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gce_state import FakeGroup

__all__ = ("Call", "World")


class Call(NamedTuple):
    """One request that reached the fake cloud.

    Attributes:
        name: of the method, such as `instances.get`; regional ones have the name of the zonal ones.
        method: the name of the method itself.
        parameters: of path and query.
        body: of the request; None if it has none.
    """

    name: str
    method: str
    parameters: Mapping[str, str]
    body: Any


class World:
    """The state of the fake cloud.

    Attributes:
        engine: machines and operations, and the changes that happen to them.
        agent: of all machines.
        groups: by place and name.
        template: the properties of the instance template of all groups.
        page_size: the largest page of a listing.
        refuses_nothing_left: whether a deletion is refused of which nothing is left to do.
    """

    def clear(self) -> None:
        """Forget everything."""
        self.engine = Engine()
        self.agent = GuestAgent()
        self.groups: dict[tuple[str, str], FakeGroup] = {}
        self.template: dict[str, Any] = {}
        self.page_size = 500
        self.refuses_nothing_left = False
