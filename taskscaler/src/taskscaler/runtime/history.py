"""The history: decisions, ended tasks and bygone instances, in memory and in the store.

One task writes the history to the store, at most once a second and only after a
change, so that it costs the tasks nothing. Nothing depends on it: if the store
cannot take it, the history has a gap and the scaler goes on. It ends only if the
store has another holder.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import anyio
import msgspec

from fleeting import CancelledInside, DeadlineExceeded, call_within
from taskscaler._errors import Fenced, StoreError
from taskscaler._summaries import InstanceSummary
from taskscaler.storage._abc import Picture, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskscaler.core import Decision, Gone, InstanceRecord, ScalerState
    from taskscaler.runtime.claims import Claims
    from taskscaler.storage import Store
    from taskscaler.storage._abc import Entry

__all__ = ("History", "log_line", "take_picture")

logger = logging.getLogger("taskscaler")

# How many decisions and how many bygone instances are kept in memory.
DECISIONS = 1000
INSTANCES = 20_000

# The pause between two writes, how long one may take, and how many entries may wait for it.
PAUSE_SECONDS = 1.0
WRITE_SECONDS = 10.0
ENTRIES = 10_000

# How many waiting and how many held keys a picture has at most.
KEYS = 10_000

LOST = "the scaler stopped unexpectedly while it ran; how far it got is unknown"


class History:
    """The newest part of what happened.

    Args:
        store: keeps the history.
        take_picture: returns how things stand now.

    Attributes:
        decisions: the newest ones.
        instances: the newest of those that are gone.
    """

    def __init__(self, store: Store, take_picture: Callable[[], Picture]) -> None:
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self.instances: deque[InstanceSummary] = deque(maxlen=INSTANCES)
        self._store = store
        self._take_picture = take_picture
        self._entries: deque[Entry] = deque(maxlen=ENTRIES)
        self._changed = anyio.Event()
        self._written: Picture | None = None
        self._failing = False

    def mark_changed(self) -> None:
        """Take a picture soon, because the state may have changed."""
        self._changed.set()

    def add(self, entry: Entry) -> None:
        """Write an entry soon."""
        self._entries.append(entry)
        self._changed.set()

    def add_decision(self, decision: Decision) -> None:
        """Log and keep a decision."""
        logger.info("scaling decision: %s", log_line(decision))
        self.decisions.append(decision)
        self.add(decision)

    def add_bygone(self, gone: Gone) -> None:
        """Log and keep an instance that is gone."""
        logger.info("instance %s of %s is gone: %s", gone.id, gone.group, gone.reason)
        self.instances.append(
            InstanceSummary(
                gone.id,
                gone.group,
                gone.created_at,
                gone.ready_at,
                gone.removed_at,
                gone.reason,
                gone.tasks,
            )
        )

    def add_lost(self, record: InstanceRecord) -> None:
        """Keep the tasks that held a slot when an earlier process ended without a trace."""
        for key in record.tasks:
            where = (record.group, record.id)
            self.add(TaskEntry(key, None, None, datetime.now(UTC), *where, "lost", LOST))

    async def run(self, epoch: int) -> None:
        """Write to the store until cancelled.

        Raises:
            Fenced: the store has another holder.
        """
        while True:
            await self._changed.wait()
            await anyio.sleep(PAUSE_SECONDS)
            await self.write(epoch)

    async def write(self, epoch: int) -> None:
        """Write all that is not written yet. A cancellation does not interrupt this.

        Raises:
            Fenced: the store has another holder.
        """
        self._changed = anyio.Event()
        entries = tuple(self._entries)
        self._entries.clear()
        picture = self._new_picture()
        if not entries and picture is None:
            return
        try:
            await self._note(epoch, entries, picture)
        except Fenced:
            raise
        except StoreError as error:
            if not self._failing:
                logger.warning("the history has a gap from here: %s", error)
            self._failing = True
        else:
            self._failing = False
            self._written = self._written if picture is None else picture

    def _new_picture(self) -> Picture | None:
        """Return how things stand, unless that is written already."""
        picture, written = self._take_picture(), self._written
        if written is not None and msgspec.structs.replace(picture, at=written.at) == written:
            return None
        return picture

    async def _note(self, epoch: int, entries: tuple[Entry, ...], picture: Picture | None) -> None:
        # Shielded: after an interrupted write it is unknown which entries are in the store, and
        # the next write would repeat them.
        name = type(self._store).__name__
        try:
            await call_within(
                WRITE_SECONDS, lambda: self._store.note(epoch, entries, picture), shield=True
            )
        except DeadlineExceeded:
            raise StoreError(f"{name} did not take the history within {WRITE_SECONDS:g}s") from None
        except CancelledInside as error:
            raise StoreError(f"{name} did not take the history: {error}") from error


def take_picture(state: ScalerState, claims: Claims) -> Picture:
    """Return how things stand now."""
    now = datetime.now(UTC)
    waiting = (
        (key, claim.asked_when(now) if (claim := claims.get(key)) is not None else now)
        for key in islice(state.waiting(), KEYS)
    )
    held = islice(state.places(), KEYS)
    return Picture(now, state.standing(), tuple(waiting), tuple(held))


def log_line(decision: Decision) -> str:
    """Return a decision with all of its inputs as one line of `key=value` pairs.

    Values that are not one word are quoted, so that programs can parse the line.
    """
    pairs: dict[str, object] = {
        "group": decision.group,
        "rule": decision.rule.value,
        "wanted": decision.wanted,
        "decided": decision.decided,
        "clamped_by": decision.clamped_by,
        **decision.demand.inputs,
        "detail": decision.detail,
    }
    return " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())


def _quoted(value: object) -> str:
    text = str(value)
    if text and not any(one.isspace() or one in '"=' for one in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
