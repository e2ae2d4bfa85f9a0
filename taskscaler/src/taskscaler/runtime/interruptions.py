"""Listens to a group that announces interruptions, for as long as the scaler runs."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from fleeting.errors import FleetingError
from fleeting.types import Notice
from taskscaler.core import events

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from fleeting.abc import InstanceGroup

__all__ = ("watch",)

logger = logging.getLogger("taskscaler")

# The pause before listening again to a group that stopped talking, and its limit.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


async def watch(group: InstanceGroup, post: Callable[[events.Event], object]) -> None:
    """Post what a group announces, until cancelled; whatever it raises, it is listened to again.

    Args:
        group: one with `Capability.WATCH`.
        post: takes the events.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            async with _listening(group) as notices:
                async for notice in notices:
                    post(_event(group.info.id, notice))
                    pause = FIRST_PAUSE_SECONDS
            why = "it ended by itself"
        except FleetingError as error:
            why = str(error)
        except Exception as error:
            logger.exception("watching group %s raised what it must not", group.info.id)
            why = f"a bug in the plugin: {type(error).__name__}"
        except anyio.get_cancelled_exc_class():
            # Unless it comes again, it was not we who were cancelled, but something in the plugin.
            await anyio.lowlevel.checkpoint_if_cancelled()
            why = "it was cancelled inside the plugin, by a bug"
        logger.warning("group %s announces no interruptions for %gs: %s", group.info.id, pause, why)
        await anyio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


@asynccontextmanager
async def _listening(group: InstanceGroup) -> AsyncGenerator[AsyncIterator[Notice]]:
    """Let the plugin clean up here and now, whyever nobody listens any more."""
    notices = group.watch()
    try:
        yield notices
    finally:
        # A generator has it, and so have streams; an iterator need not.
        aclose = getattr(notices, "aclose", None)
        if aclose is not None:
            await aclose()


def _event(group: str, notice: object) -> events.InterruptionAnnounced:
    if not isinstance(notice, Notice):
        # What it is could be a secret.
        raise TypeError(f"it announced a value of type {type(notice).__name__}, and no Notice")
    return events.InterruptionAnnounced(group, notice.id, notice.reason, notice.deadline)
