"""Decides which failures of instances and groups a run tells, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core import Stage, hindrance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskscaler.core import Standing

__all__ = ("Troubles", "no_group_left")

# A failure that has passed after so many seconds is not told.
PATIENCE_SECONDS = 4.0
# An instance that boots refuses connections, and that is usual.
BOOT_SECONDS = 10.0
# A failure that has passed and come back is told again after this time at the earliest.
QUIET_SECONDS = 300.0

# The group, and the stage or the kind of failure.
_Key = tuple[str, Stage | str | None]
# How long each kind lasts before it is told, if not `PATIENCE_SECONDS`.
_PATIENCE: Mapping[Stage | str | None, float] = {Stage.CONNECT: BOOT_SECONDS, "gone": 0.0}


class Troubles:
    """Remembers since when each failure lasts, and which were told."""

    def __init__(self) -> None:
        self._since: dict[_Key, float] = {}
        self._told: dict[_Key, float] = {}

    def due(self, standing: Standing, now: float) -> list[str]:
        """Return the failures that are to be told now, each as one line.

        Args:
            standing: the summary of now.
            now: monotonic seconds.
        """
        lasting = dict(_lasting(standing))
        self._since = {key: self._since.get(key, now) for key in lasting}
        due = [key for key in lasting if self._is_due(key, now)]
        self._told |= dict.fromkeys(due, now)
        return [lasting[key] for key in due]

    def skip(self, standing: Standing, now: float) -> None:
        """The failures of now were told in another way."""
        self._told |= {key: now for key, _ in _lasting(standing)}

    def _is_due(self, key: _Key, now: float) -> bool:
        patience = _PATIENCE.get(key[1], PATIENCE_SECONDS)
        told = self._told.get(key)
        if told is None:
            return self._since[key] + patience <= now
        return told < self._since[key] and told + QUIET_SECONDS <= now


def _lasting(standing: Standing) -> Iterator[tuple[_Key, str]]:
    """Yield the failures of now, each with a key that stays the same while it lasts."""
    for one in standing.obstacles:
        yield (one.group, one.stage), hindrance(one)
    for group, trouble in standing.troubles.items():
        known = [one for one in standing.obstacles if one.group == group and one.reason in trouble]
        if group in standing.gone:
            text = f"instance group {group} is gone, with all that it held: {trouble}"
            yield (group, "gone"), text
        elif not known:
            yield (group, None), f"{group}: {trouble}"


def no_group_left(standing: Standing, groups: int) -> str:
    """Return why no instance will come any more; empty if one may come.

    Args:
        standing: the summary of now.
        groups: how many groups the run has.
    """
    if len(standing.gone) < groups:
        return ""
    why = "; ".join(f"{group}: {standing.troubles.get(group, '')}" for group in standing.gone)
    one = "the instance group is gone, with all that it held"
    several = "all instance groups are gone, with all that they held"
    return f"{one if groups == 1 else several}: {why}"
