"""Instances that the cloud creates in the place of others, without being asked."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from core_model import Play
from fleeting.types import Instance, State
from taskscaler.core import Phase, Policy, Settings, UnknownInstances, effects, events
from taskscaler.core.model import members

if TYPE_CHECKING:
    import pytest

ROOMY = Policy(idle_time=timedelta(minutes=20))


def successor(id: str = "b", replaces: str = "a", state: State = State.RUNNING) -> Instance:
    """Return an instance that the cloud created in the place of another one."""
    return Instance(id, state, replaces=replaces)


def test_the_successor_of_one_of_ours_is_ours() -> None:
    """It is listed together with the one that the cloud takes away, in any order."""
    play = Play(Settings(policy=ROOMY, max_instances=2))
    play.ready("a")
    play.relist(successor(), Instance("a", State.DELETING))
    assert play.take(effects.Prepare).id == "b"
    assert not play.has(effects.Increase)


def test_a_successor_that_comes_later_is_ours() -> None:
    """The one in whose place it comes may be gone by then."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist(Instance("a", State.DELETING))
    play.relist()
    assert play.take(effects.Gone).id == "a"
    play.relist(successor())
    assert play.take(effects.Prepare).id == "b"


def test_the_successor_of_a_missing_instance_is_ours() -> None:
    """One listing without an instance proves nothing, but its successor does not wait for two."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist(successor())
    assert play.take(effects.Prepare).id == "b"
    assert play.phase("a") is Phase.READY


def test_a_successor_leaves_requests_open() -> None:
    """No request asked for it, so the instance that was requested is ours as well."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.say(events.TaskAsked("next"))
    play.tick()
    play.take(effects.Increase)
    play.relist(Instance("a", State.RUNNING), successor(), Instance("c", State.RUNNING))
    assert [play.phase(id) for id in "bc"] == [Phase.PREPARING, Phase.PREPARING]


def test_the_successor_of_a_stranger_is_a_stranger() -> None:
    """So is one whose predecessor is not known, or that comes for nothing."""
    play = Play(Settings(policy=ROOMY))
    play.list(Instance("x", State.RUNNING))
    play.relist(successor("y", "x"), successor("z", "unknown"), Instance("x", State.DELETING))
    assert [play.phase(id) for id in "yz"] == [Phase.FOREIGN, Phase.FOREIGN]


def test_a_successor_is_not_removed_as_unknown() -> None:
    """The setting for unknown instances does not concern it."""
    play = Play(Settings(policy=ROOMY, unknown_instances=UnknownInstances.REMOVE))
    play.ready("a")
    play.relist(successor(), Instance("a", State.DELETING))
    assert play.phase("b") is Phase.PREPARING


def test_a_successor_that_is_ending_is_nothing_to_wait_for() -> None:
    """It never served, so it is counted and left alone."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist(successor(state=State.DELETING), Instance("a", State.RUNNING))
    assert play.phase("b") is Phase.FOREIGN


def test_only_the_latest_predecessors_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory has a bound; a successor that comes after that is a stranger."""
    monkeypatch.setattr(members, "MEMORY", 1)
    play = Play(Settings(policy=ROOMY))
    play.ready("a", "b")
    play.relist(Instance("a", State.DELETING), Instance("b", State.RUNNING))
    play.relist(Instance("b", State.DELETING))
    play.relist()
    play.relist(successor("c", "a"), successor("d", "b"))
    assert [play.phase(id) for id in "cd"] == [Phase.FOREIGN, Phase.PREPARING]
