"""`fleeting group watch`: a table that is kept up to date, or a line for each change."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import anyio

from fleeting._text import is_terminal, output_descriptor, plain, say, show
from fleeting.cli._open_group import open_group
from fleeting.cli._plugin_calls import expect_type, plugin_bug
from fleeting.cli._signals import undo_on_exit
from fleeting.cli._status import instance_table, summary
from fleeting.errors import FleetingError, ProviderError
from fleeting.types import Capability, Listing, Notice

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from fleeting.cli._open_group import OpenGroup
    from fleeting.cli._selection import GroupSelection
    from fleeting.types import Duration

__all__ = ("changes", "fitted", "watch")

# How many of the newest changes are shown below the table.
NOTES = 8
# How long to wait before a source of notices that failed is opened again.
NOTICE_PAUSE_SECONDS = 5.0

_ENTER_ALTERNATE, _LEAVE_ALTERNATE = "\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def changes(before: Listing, after: Listing) -> list[str]:
    """Return a line for each difference between two listings."""
    old = {one.id: one for one in before.instances}
    new = {one.id: one for one in after.instances}
    lines: list[str] = []
    for id, one in sorted(new.items()):
        reason = f" ({plain(one.reason)})" if one.reason else ""
        was = old.get(id)
        if was is None:
            lines.append(f"{plain(id)}: new, {one.state.value}{reason}")
        elif was.incarnation and was.incarnation != one.incarnation:
            lines.append(f"{plain(id)}: recreated, {one.state.value}{reason}")
        elif (was.state, was.reason) != (one.state, one.reason):
            lines.append(f"{plain(id)}: {was.state.value} -> {one.state.value}{reason}")
    lines += [f"{plain(id)}: gone" for id in sorted(old.keys() - new.keys())]
    if before.pending != after.pending:
        lines.append(f"pending: {before.pending} -> {after.pending}")
    known = {one.id for one in before.failures}
    lines += [f"failure: {plain(str(one.error))}" for one in after.failures if one.id not in known]
    return lines


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """Cut lines to the size of a screen; the last one counts those that do not fit."""
    if len(lines) > rows:
        left = len(lines) - max(rows - 1, 0)
        lines = [*lines[: max(rows - 1, 0)], f"... {left} more lines"]
    return [line[:columns] for line in lines[: max(rows, 0)]]


def arranged(picture: Sequence[str], notes: Sequence[str], columns: int, rows: int) -> list[str]:
    """Return the lines of a screen: the group, and below it the newest notes.

    The notes get the rows that the group leaves, and at least a third of the screen.
    """
    room = max(rows // 3, rows - len(picture)) - 1
    newest = [*notes][-room:] if room > 0 else []
    below = ["", *newest] if newest else []
    return [*fitted(picture, columns, rows - len(below)), *(line[:columns] for line in below)]


async def watch(selection: GroupSelection, interval: Duration) -> int:
    """Show how a group changes, until cancelled.

    Args:
        selection: the group.
        interval: how often to list it.

    Raises:
        ProviderError: the group cannot be listed, and trying again will not help.
    """
    async with open_group(selection) as group:
        watcher = _Watcher(group, interval.total_seconds())
        with _screen(watcher):
            async with anyio.create_task_group() as tasks:
                if Capability.WATCH in group.instances.info.capabilities:
                    tasks.start_soon(watcher.follow_notices)
                await watcher.follow_listings()
    return 0


class _Watcher:
    """The latest state of a group, and the newest changes of it."""

    def __init__(self, group: OpenGroup, interval_seconds: float) -> None:
        # A terminal that cannot move its cursor gets lines, like a pipe.
        self.draws = is_terminal() and os.environ.get("TERM", "dumb") != "dumb"
        self._group = group
        self._interval_seconds = interval_seconds
        self._listing = Listing()
        self._notes: deque[str] = deque(maxlen=NOTES)

    async def follow_listings(self) -> None:
        """List the group at each interval."""
        problem = ""
        while True:
            try:
                listing = await self._group.list_instances()
            except ProviderError as error:
                if not error.retryable:
                    raise
                if problem != str(error):
                    problem = str(error)
                    self._note(f"listing failed: {plain(problem)}")
            else:
                problem = ""
                for line in changes(self._listing, listing):
                    self._note(line)
                self._listing = listing
            self._draw()
            await anyio.sleep(self._interval_seconds)

    async def follow_notices(self) -> None:
        """Note the interruptions that the group announces."""
        problem = ""
        while True:
            try:
                async with aclosing(self._notices()) as notices:
                    async for notice in notices:
                        problem = ""
                        self._announce(notice)
            except FleetingError as error:
                if problem != str(error):
                    problem = str(error)
                    self._note(f"notices failed: {plain(problem)}")
                    self._draw()
            await anyio.sleep(NOTICE_PAUSE_SECONDS)

    async def _notices(self) -> AsyncGenerator[Notice]:
        """Yield the notices of the group; every failure is a `FleetingError`."""
        try:
            # The contract says iterator; most are generators, which have to be closed.
            notices = self._group.instances.watch()
            async with AsyncExitStack() as stack:
                if isinstance(notices, AsyncGenerator):
                    generator = cast("AsyncGenerator[Notice]", notices)
                    await stack.enter_async_context(aclosing(generator))
                async for notice in notices:
                    expect_type(notice, Notice)
                    yield notice
        except FleetingError:
            raise
        except Exception as error:
            raise plugin_bug(error, f"group {self._group.id} stopped sending notices") from error

    def picture(self) -> list[str]:
        """Return the lines that describe the group."""
        table = ["", *instance_table(self._listing.instances)] if self._listing.instances else []
        return [plain(self._group.id), summary(self._listing), *table]

    def _announce(self, notice: Notice) -> None:
        by = f", by {notice.deadline:%H:%M:%SZ}" if notice.deadline else ""
        self._note(f"{plain(notice.id)}: will be interrupted: {plain(notice.reason)}{by}")
        self._draw()

    def _note(self, text: str) -> None:
        line = f"{datetime.now(UTC):%H:%M:%SZ} {text}"
        self._notes.append(line)
        if not self.draws:
            say(line)

    def _draw(self) -> None:
        if not self.draws:
            return
        columns, rows = shutil.get_terminal_size()
        # The last row stays empty: at its end some terminals scroll.
        lines = arranged(self.picture(), self._notes, columns, rows - 1)
        show(_HOME_AND_CLEAR + "\n".join(lines))


@contextmanager
def _screen(watcher: _Watcher) -> Generator[None]:
    """Draw on the alternate screen, and print the last picture on the normal one."""
    if not watcher.draws:
        yield
        return

    def restore() -> None:
        with suppress(OSError):  # The terminal may be gone.
            os.write(output_descriptor(), _LEAVE_ALTERNATE)

    show(_ENTER_ALTERNATE)
    try:
        with undo_on_exit(restore):
            yield
    finally:
        for line in watcher.picture():
            say(line)
