"""Reloading a changed config.toml while a run is in progress."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from taskscaler.cli.plan import Options, Plan, make_plan
from taskscaler.cli.reload import reload_plan

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

CONFIG = """
concurrent = 2
[[runners]]
name = "builders"
[runners.autoscaler]
plugin = "local"
max_instances = 2
[runners.autoscaler.extensions]
id = "builders"
"""


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the command does."""
    return "asyncio"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return the plan of a run that was started with the file."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    given: dict[str, Any] = dict.fromkeys(field.name for field in fields(Options))
    given |= {"config": path, "command": ("true",), "plugin_config": (), "output": "none"}
    return make_plan(Options(**given))


async def change(plan: Plan, old: str, new: str) -> tuple[Plan, list[str], list[str]]:
    """Write the file with a change; return the new plan, the changes and the kept settings."""
    assert plan.options is not None
    assert plan.options.config is not None
    plan.options.config.write_text(CONFIG.replace(old, new))
    found = await reload_plan(plan)
    assert found is not None
    return found.plan, list(found.changes), list(found.kept)


async def test_kept_settings_are_compared_with_those_in_effect(plan: Plan) -> None:
    """A kept setting is reported after each change, until the file has the old value again."""
    plan, _, kept = await change(plan, 'id = "builders"', 'id = "others"')
    assert kept == ["the location of the state (id, state_storage)"]
    both = 'id = "others"\ncooldown = "1m"'
    plan, changes, kept = await change(plan, 'id = "builders"', both)
    assert kept == ["the location of the state (id, state_storage)"]
    assert changes == ["cooldown 5m -> 1m"]
    _, changes, kept = await change(plan, "nothing", "nothing")
    assert kept == []
    assert changes == ["cooldown 1m -> 5m"]


async def test_limit_of_the_jobs_is_named_by_its_keys(plan: Plan) -> None:
    """A change of `concurrent` is reported under that key; a missing value is `no limit`."""
    plan, changes, _ = await change(plan, "concurrent = 2", "")
    assert changes == ["concurrent 2 -> no limit"]
    _, changes, _ = await change(plan, 'name = "builders"', 'name = "builders"\nlimit = 3')
    assert changes == ["concurrent no limit -> 2", "limit no limit -> 3"]


POLICIES = """
[[runners.autoscaler.policy]]
idle_time = "5m"
[[runners.autoscaler.policy]]
periods = ["* 8-17 * * 1-5"]
timezone = "Europe/Berlin"
idle_count = 2
"""
LAST = 'id = "builders"\n'


async def test_each_policy_is_told_by_its_place_with_old_and_new_values(plan: Plan) -> None:
    """Also one that is added, removed, or in force at other times."""
    plan, changes, _ = await change(plan, LAST, LAST + POLICIES)
    assert changes == [
        "policy[0] (* * * * *) was added",
        "policy[1] (* 8-17 * * 1-5) was added",
    ]
    plan, changes, _ = await change(plan, LAST, LAST + POLICIES.replace("count = 2", "count = 4"))
    assert changes == ["policy[1] (* 8-17 * * 1-5): idle_count 2 -> 4"]
    hours = POLICIES.replace("8-17", "9-17").replace("count = 2", "count = 4")
    plan, changes, _ = await change(plan, LAST, LAST + hours)
    assert changes == [
        "policy[1] (* 9-17 * * 1-5): periods * 8-17 * * 1-5 -> * 9-17 * * 1-5",
    ]
    other = POLICIES.replace("8-17", "9-17").replace('"5m"', '"5m"\nscale_factor = 0.5')
    plan, changes, _ = await change(plan, LAST, LAST + other.replace("Europe/Berlin", ""))
    assert changes == [
        "policy[0] (* * * * *): scale_factor 0.0 -> 0.5",
        "policy[1] (* 9-17 * * 1-5): idle_count 4 -> 2, timezone Europe/Berlin -> not set",
    ]
    _, changes, _ = await change(plan, "nothing", "nothing")
    assert changes == [
        "policy[0] (* * * * *) was removed",
        "policy[1] (* 9-17 * * 1-5) was removed",
    ]
