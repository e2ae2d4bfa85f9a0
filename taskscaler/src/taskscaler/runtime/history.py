"""What the scaler remembers of what it did, for people: in memory, and in the store.

Notes are written by one task, at most once a second and only when something has
changed, so that they cost the tasks nothing. The picture of how things stand is
not even made more often. A store that cannot take a note does not stop the
scaler, since nothing depends on it; only one that has another holder does.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import anyio
import msgspec

from taskscaler._errors import Fenced, StoreError
from taskscaler._log import describe
from taskscaler._summaries import InstanceSummary
from taskscaler.storage._abc import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskscaler.core import Decision, Gone, ScalerState
    from taskscaler.runtime.claims import Claim
    from taskscaler.storage import Store
    from taskscaler.storage._abc import Entry

__all__ = ("History", "take_picture")

logger = logging.getLogger("taskscaler")

# How many decisions and how many bygone instances are remembered here.
DECISIONS = 1000
INSTANCES = 20_000

# The pause between two notes, how long one may take, and how many entries may wait for it.
PAUSE_SECONDS = 1.0
NOTE_SECONDS = 10.0
ENTRIES = 10_000

# How many waiting and how many held keys are in a picture at most.
KEYS = 10_000


class History:
    """What happened, the newest of it.

    Args:
        store: where notes go.
        picture: makes a picture of now.

    Attributes:
        decisions: the newest ones.
        instances: the newest of those that are gone.
    """

    def __init__(self, store: Store, picture: Callable[[], Picture]) -> None:
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self.instances: deque[InstanceSummary] = deque(maxlen=INSTANCES)
        self._store = store
        self._take_picture = picture
        self._entries: deque[Entry] = deque(maxlen=ENTRIES)
        self._changed = anyio.Event()
        self._noted: Picture | None = None
        self._failing = False

    def change(self) -> None:
        """Let a picture be taken soon: something may have changed."""
        self._changed.set()

    def add(self, entry: Entry) -> None:
        """Let something be noted soon."""
        self._entries.append(entry)
        self._changed.set()

    def decided(self, decision: Decision) -> None:
        """Remember a decision."""
        logger.info("scaling decision: %s", describe(decision))
        self.decisions.append(decision)
        self.add(decision)

    def buried(self, gone: Gone) -> None:
        """Remember an instance that is no more."""
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

    async def run(self, epoch: int) -> None:
        """Write notes until cancelled.

        Raises:
            Fenced: the store has another holder.
        """
        while True:
            await self._changed.wait()
            await anyio.sleep(PAUSE_SECONDS)
            await self.write(epoch)

    async def write(self, epoch: int) -> None:
        """Write what has not been written, if there is anything; not cut off by a cancellation.

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
            self._noted = self._noted if picture is None else picture

    def _new_picture(self) -> Picture | None:
        """Return how things stand, unless that was noted already."""
        picture, noted = self._take_picture(), self._noted
        if noted is not None and msgspec.structs.replace(picture, at=noted.at) == noted:
            return None
        return picture

    async def _note(self, epoch: int, entries: tuple[Entry, ...], picture: Picture | None) -> None:
        # Half-written it could not be told from unwritten, and would be written twice.
        with anyio.move_on_after(NOTE_SECONDS, shield=True):
            await self._store.note(epoch, entries, picture)
            return
        raise StoreError(f"{type(self._store).__name__} took no note within {NOTE_SECONDS:g}s")


def take_picture(state: ScalerState, claims: Mapping[str, Claim]) -> Picture:
    """Return how things stand now."""
    now = datetime.now(UTC)
    waiting = (
        (key, claims[key].asked_at if key in claims else now)
        for key in islice(state.waiting(), KEYS)
    )
    held = ((one.key, one.group, one.instance) for one in islice(state.held(), KEYS))
    return Picture(now, state.standing(), tuple(waiting), tuple(held))
