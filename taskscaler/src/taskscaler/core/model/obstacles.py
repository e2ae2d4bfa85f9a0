"""The failures that keep instances of one group from getting ready, or from staying healthy."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Obstacle", "Obstacles", "Stage")


class Stage(enum.Enum):
    """The steps on the way to a ready instance, and its checks after that."""

    SETTINGS = "the settings on this computer"
    CONNECT_INFO = "connect_info of the provider"
    CONNECT = "connect"
    LOGIN = "login"
    READY_COMMAND = "instance_ready_command"
    HEALTH = "health check"


class Obstacle(msgspec.Struct, frozen=True):
    """A stage that fails now.

    Attributes:
        group: the id of the group.
        stage: the one.
        instances: on how many instances it fails now.
        times: how often it has failed.
        since: when it failed first.
        reason: the newest failure, human-readable.
    """

    group: str
    stage: Stage
    instances: int
    times: int
    since: datetime
    reason: str


@dataclass(slots=True)
class _Failing:
    """A stage that fails: the same as in `Obstacle`, with the ids of the instances."""

    since: datetime
    times: int = 0
    reason: str = ""
    ids: set[str] = field(default_factory=set[str])


class Obstacles:
    """The stages that fail in one group.

    A failure is forgotten when its instance passes or goes. Those of instances that were given up
    are kept until another one is ready: the next instance will most likely meet them again.

    Args:
        group: the id of the group.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._failing: dict[Stage, _Failing] = {}

    def __iter__(self) -> Iterator[Obstacle]:
        """Yield the stages that fail, as values."""
        for stage, one in self._failing.items():
            yield Obstacle(self._group, stage, len(one.ids), one.times, one.since, one.reason)

    @property
    def delays(self) -> bool:
        """Return whether an instance that runs does not get ready."""
        return any(one.ids for stage, one in self._failing.items() if stage is not Stage.HEALTH)

    def meet(self, id: str, stage: Stage, reason: str, at: datetime) -> bool:
        """Count a failure of an instance; return whether it is its first in this stage."""
        one = self._failing.setdefault(stage, _Failing(at))
        one.times += 1
        one.reason = reason
        is_first = id not in one.ids
        one.ids.add(id)
        return is_first

    def give_up(self, id: str) -> None:
        """An instance is given up for its failures, and they are kept."""
        for one in self._failing.values():
            one.ids.discard(id)

    def leave(self, id: str) -> None:
        """An instance fails no longer: it passed, or goes for another reason."""
        failing = self._failing
        for stage in [stage for stage, one in failing.items() if id in one.ids]:
            failing[stage].ids.discard(id)
            if not failing[stage].ids:
                del failing[stage]

    def overcome(self) -> None:
        """A new instance is ready: forget the failures of those that were given up."""
        self._failing = {stage: one for stage, one in self._failing.items() if one.ids}
