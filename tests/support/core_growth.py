"""Demand and answers for tests of growth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from core_model import Play
from fleeting.types import Accepted, GroupInfo
from taskscaler.core import Settings, effects, events

if TYPE_CHECKING:
    from fleeting.errors import ProviderError

UNLIMITED = Settings(throttle_limit=math.inf)
SPOT, ON_DEMAND = GroupInfo("spot"), GroupInfo("on-demand")


def ask(play: Play, count: int, prefix: str = "t") -> None:
    """Let so many tasks wait, then decide."""
    for number in range(count):
        play.say(events.TaskAsked(f"{prefix}{number}"))
    play.tick()


def settle(play: Play, group: str = "g", error: ProviderError | None = None) -> int:
    """Answer the request to a group, wholly or with a refusal; return how many it asked for."""
    increase = play.take(effects.Increase, group)
    accepted = Accepted(0 if error else increase.count, error=error)
    play.say(events.IncreaseSettled(group, increase.operation, accepted))
    return increase.count


def two_groups(settings: Settings | None = None, *groups: GroupInfo) -> Play:
    """Return a play with two empty groups that are listed."""
    play = Play(settings or UNLIMITED, *(groups or (SPOT, ON_DEMAND)))
    play.list(group="spot")
    play.list(group="on-demand")
    return play


def wake_at(play: Play) -> float:
    """Return when the core wants to be woken."""
    return next(one.monotonic for one in reversed(play.todo) if isinstance(one, effects.WakeAt))
