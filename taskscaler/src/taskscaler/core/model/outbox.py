"""Collects what one event leads to, and puts what must be stored in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.effects import Persist

if TYPE_CHECKING:
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.records import Record

__all__ = ("Outbox",)


class Outbox:
    """The effects of one event, and the records that changed with it."""

    __slots__ = ("_drop", "_effects", "_put")

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._put: dict[tuple[str, str, str], Record] = {}
        self._drop: dict[tuple[str, str, str], None] = {}

    def add(self, effect: Effect) -> None:
        """Append an effect."""
        self._effects.append(effect)

    def put(self, record: Record) -> None:
        """Store a record, in place of any earlier one of its key."""
        self._drop.pop(record.key, None)
        self._put[record.key] = record

    def drop(self, key: tuple[str, str, str]) -> None:
        """Forget the record of a key."""
        self._put.pop(key, None)
        self._drop[key] = None

    def finish(self) -> list[Effect]:
        """Return all effects in order; if anything is to be stored, that comes first."""
        if self._put or self._drop:
            self._effects.insert(0, Persist(tuple(self._put.values()), tuple(self._drop)))
        return self._effects
