"""Impossible events change nothing, and after a bug the core refuses to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from core_model import START, Play, picture
from taskscaler import IllegalEvent
from taskscaler.core import events, machine

if TYPE_CHECKING:
    from collections.abc import Callable


def failing(error: BaseException) -> Callable[..., None]:
    """Return a handler that changes something and then fails."""

    def handle(fleet: Any, *_: object) -> None:
        fleet.tasks.reserve("half")
        raise error

    return handle


@pytest.mark.parametrize(
    "error", [KeyError("gone"), OverflowError("too large"), KeyboardInterrupt()]
)
def test_core_refuses_to_go_on_after_a_bug(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state may be half changed, so only a restart from the store helps; the error says so."""
    play = Play()
    handlers = dict(machine.HANDLERS)
    handlers[events.TaskAsked] = failing(error)
    monkeypatch.setattr(machine, "HANDLERS", handlers)
    now = events.Now(play.seconds, START)
    with pytest.raises(type(error)):
        play.state.apply(events.TaskAsked("a"), now)
    monkeypatch.undo()
    for event in (events.TaskReserved("b"), events.TimePassed()):
        with pytest.raises(RuntimeError, match="a bug while it handled TaskAsked") as raised:
            play.state.apply(event, now)
        assert type(error).__name__ in str(raised.value)
        assert "restart it" in str(raised.value)
    assert play.state.task("b") is None


def test_impossible_event_leaves_the_core_usable() -> None:
    """The state is exactly as before, nothing is left to be done, and the next event works."""
    play = Play()
    play.todo.clear()
    before = picture(play.state)
    for event in (
        events.TaskReleased("a"),
        events.TaskCancelled("a"),
        events.InstancePrepared("elsewhere", "i"),
        events.RecordsRestored(()),
    ):
        with pytest.raises(IllegalEvent):
            play.say(event)
        assert picture(play.state) == before
    assert play.todo == []
    play.say(events.TaskAsked("a"))
    assert play.queue() == ["a"]
