"""A listing with much news in it is digested in parts, between which everything else goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core_model import START
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import Phase, Policy, ScalerState, Settings, effects, events

FLEET = Listing(tuple(Instance(f"i-{number}", State.RUNNING) for number in range(5)))


def now(seconds: float) -> events.Now:
    """Return a moment."""
    return events.Now(seconds, START + timedelta(seconds=seconds))


def finish(state: ScalerState, seconds: float) -> None:
    """Let it look at all parts of the listing."""
    while state.digesting:
        state.apply(events.TimePassed(), now(seconds))


@pytest.fixture
def state() -> ScalerState:
    """Return a core that looks at one new instance at a time, and expects five of them."""
    settings = Settings(policy=Policy(idle_count=5, idle_time=timedelta(minutes=20)))
    state = ScalerState([GroupInfo("g")], settings, name="op", portion=1)
    state.apply(events.TimePassed(), now(0))
    state.apply(events.ListingArrived("g", Listing()), now(0))
    (increase,) = (
        one for one in state.apply(events.TimePassed(), now(0)) if isinstance(one, effects.Increase)
    )
    state.apply(events.IncreaseSettled("g", increase.operation, Accepted(5)), now(0))
    state.apply(events.ListingArrived("g", FLEET), now(1))
    return state


def test_it_goes_on_by_itself(state: ScalerState) -> None:
    """After each part it wants to be woken at once, and with the last one all are known."""
    for known in range(1, 5):
        assert len([*state.instances()]) == known
        assert state.demand().instances == 5, "what is not looked at yet is still expected"
        assert effects.WakeAt(1) in state.apply(events.TimePassed(), now(1))
    assert len([*state.instances()]) == 5
    state.apply(events.TimePassed(), now(1))
    assert not state.digesting
    assert effects.WakeAt(1) not in state.apply(events.TimePassed(), now(1))


def test_a_task_gets_its_slot_in_between(state: ScalerState) -> None:
    """Ready instances take tasks although the rest of the listing is not digested."""
    state.apply(events.InstancePrepared("g", "i-0"), now(1))
    answer = state.apply(events.TaskAsked("t"), now(1))
    assert any(isinstance(one, effects.Grant) and one.id == "i-0" for one in answer)


def test_nothing_is_decided_before_its_end(state: ScalerState) -> None:
    """Neither is anything bought for tasks that ask meanwhile, nor is another listing asked for."""
    for number in range(20):
        state.apply(events.TaskAsked(f"t-{number}"), now(1))
    answers: list[effects.Effect] = []
    while state.digesting:
        assert not any(isinstance(one, effects.Increase | effects.List) for one in answers)
        answers = state.apply(events.TimePassed(), now(100))
    assert any(isinstance(one, effects.Increase) for one in answers)


def test_missing_instances_are_missed_at_its_end(state: ScalerState) -> None:
    """An instance whose turn has not come is not taken for one that is gone."""
    finish(state, 1)
    turned = tuple(Instance(one.id, State.UNKNOWN) for one in FLEET.instances[:4])
    state.apply(events.ListingArrived("g", Listing(turned)), now(2))
    finish(state, 2)
    assert {one.phase for one in state.instances()} == {Phase.PREPARING}
    state.apply(events.ListingArrived("g", Listing(turned)), now(3))
    assert len([*state.instances()]) == 5, "the fifth was missed once, and is not gone yet"
    finish(state, 3)
    assert [one.id for one in state.instances()] == ["i-0", "i-1", "i-2", "i-3"]
