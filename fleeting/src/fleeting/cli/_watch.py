"""`fleeting group watch`: a table that is drawn again and again, or a line for each change."""

from __future__ import annotations

import os
import shutil
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import anyio
import click

from fleeting._text import plain
from fleeting.cli._endings import undone
from fleeting.cli._open_group import bug, expect, opened
from fleeting.cli._status import instance_table, list_instances, summary
from fleeting.cli._streams import STDOUT
from fleeting.errors import FleetingError, ProviderError
from fleeting.types import Capability, Listing, Notice

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from fleeting.cli._open_group import Hand
    from fleeting.cli._target import Target
    from fleeting.types import Duration

__all__ = ("changes", "fitted", "watch")

# So many of the newest are shown below the table.
NOTES = 8
# A source of notices that failed is asked again after this time.
NOTICE_PAUSE_SECONDS = 5.0

_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"
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
            lines.append(f"{plain(id)}: another machine, {one.state.value}{reason}")
        elif (was.state, was.reason) != (one.state, one.reason):
            lines.append(f"{plain(id)}: {was.state.value} -> {one.state.value}{reason}")
    lines += [f"{plain(id)}: gone" for id in sorted(old.keys() - new.keys())]
    if before.pending != after.pending:
        lines.append(f"pending: {before.pending} -> {after.pending}")
    lines += [f"failure: {plain(str(one))}" for one in after.failures]
    return lines


def fitted(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """Return what of the lines there is room for, and how many more there are."""
    if len(lines) > rows:
        left = len(lines) - max(rows - 1, 0)
        lines = [*lines[: max(rows - 1, 0)], f"... {left} more lines"]
    return [line[:columns] for line in lines[: max(rows, 0)]]


def arranged(picture: Sequence[str], notes: Sequence[str], columns: int, rows: int) -> list[str]:
    """Return the lines of a screen: the group, and below it the newest of the notes.

    The notes get what the group leaves, and a third of the screen at least.
    """
    room = max(rows // 3, rows - len(picture)) - 1
    newest = [*notes][-room:] if room > 0 else []
    below = ["", *newest] if newest else []
    return [*fitted(picture, columns, rows - len(below)), *(line[:columns] for line in below)]


async def watch(target: Target, interval: Duration) -> int:
    """Show how a group changes, until cancelled.

    Args:
        target: the group.
        interval: how often to look.

    Raises:
        ProviderError: the group cannot be listed, and trying again will not help.
    """
    async with opened(target) as hand:
        watcher = _Watcher(hand, interval.total_seconds())
        with _screen(watcher):
            async with anyio.create_task_group() as tasks:
                if Capability.WATCH in hand.group.info.capabilities:
                    tasks.start_soon(watcher.hear_notices)
                await watcher.look()
    return 0


class _Watcher:
    """What is known of a group that is watched."""

    def __init__(self, hand: Hand, interval_seconds: float) -> None:
        # On a terminal that cannot move its cursor there are lines, too.
        self.draws = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._hand = hand
        self._interval_seconds = interval_seconds
        self._listing = Listing()
        self._notes: deque[str] = deque(maxlen=NOTES)

    async def look(self) -> None:
        """Look at the group again and again."""
        problem = ""
        while True:
            try:
                listing = await list_instances(self._hand)
            except ProviderError as error:
                if not error.retryable:
                    raise
                if problem != str(error):
                    problem = str(error)
                    self._note(f"not listed: {plain(problem)}")
            else:
                problem = ""
                for line in changes(self._listing, listing):
                    self._note(line)
                self._listing = listing
            self._draw()
            await anyio.sleep(self._interval_seconds)

    async def hear_notices(self) -> None:
        """Note what the group announces by itself."""
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
                    self._note(f"no notices: {plain(problem)}")
                    self._draw()
            await anyio.sleep(NOTICE_PAUSE_SECONDS)

    async def _notices(self) -> AsyncGenerator[Notice]:
        """Yield what the group announces; each of its failures is one of ours."""
        try:
            # It is an iterator, and mostly a generator, which has to be closed.
            notices = self._hand.group.watch()
            async with AsyncExitStack() as stack:
                if isinstance(notices, AsyncGenerator):
                    generator = cast("AsyncGenerator[Notice]", notices)
                    await stack.enter_async_context(aclosing(generator))
                async for notice in notices:
                    expect(notice, Notice)
                    yield notice
        except FleetingError:
            raise
        except Exception as error:
            raise bug(error, f"group {self._hand.id} announces nothing") from error

    def picture(self) -> list[str]:
        """Return the lines of what is known."""
        table = ["", *instance_table(self._listing.instances)] if self._listing.instances else []
        return [plain(self._hand.id), summary(self._listing), *table]

    def _announce(self, notice: Notice) -> None:
        at = f", at {notice.deadline:%H:%M:%SZ} at the latest" if notice.deadline else ""
        self._note(f"{plain(notice.id)}: will be taken away: {plain(notice.reason)}{at}")
        self._draw()

    def _note(self, text: str) -> None:
        line = f"{datetime.now(UTC):%H:%M:%SZ} {text}"
        self._notes.append(line)
        if not self.draws:
            click.echo(line)

    def _draw(self) -> None:
        if not self.draws:
            return
        columns, rows = shutil.get_terminal_size()
        # The last row stays empty: behind its end some terminals go on to another one.
        lines = arranged(self.picture(), self._notes, columns, rows - 1)
        click.echo(_HOME_AND_CLEAR + "\n".join(lines), nl=False)


@contextmanager
def _screen(watcher: _Watcher) -> Generator[None]:
    """Draw on a screen of our own, and leave the last picture behind on the first one."""
    if not watcher.draws:
        yield
        return

    def give_back() -> None:
        with suppress(OSError):  # It may be gone itself.
            os.write(STDOUT, _FIRST_SCREEN)

    click.echo(_OTHER_SCREEN, nl=False)
    try:
        with undone(give_back):
            yield
    finally:
        click.echo("\n".join(watcher.picture()))
