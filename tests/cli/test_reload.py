"""What a change of the operator's file means for a run that is under way."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from taskscaler.cli.plan import Options, Plan, make_plan
from taskscaler.cli.reload import reread

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
    """Return the plan of a run that has begun with the file."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    given: dict[str, Any] = dict.fromkeys(field.name for field in fields(Options))
    given |= {"config": path, "command": ("true",), "plugin_config": (), "output": "none"}
    return make_plan(Options(**given))


async def change(plan: Plan, old: str, new: str) -> tuple[Plan, list[str], list[str]]:
    """Write the file with this change, and return the new plan, the changes and what is kept."""
    assert plan.options is not None
    assert plan.options.config is not None
    plan.options.config.write_text(CONFIG.replace(old, new))
    found = await reread(plan)
    assert found is not None
    return found.plan, list(found.changes), list(found.kept)


async def test_what_is_kept_is_told_against_what_is_in_force(plan: Plan) -> None:
    """Another change does not hide what still waits for a new start, and going back ends it."""
    plan, _, kept = await change(plan, 'id = "builders"', 'id = "others"')
    assert kept == ["the place of the state (id, state_storage)"]
    both = 'id = "others"\ncooldown = "1m"'
    plan, changes, kept = await change(plan, 'id = "builders"', both)
    assert kept == ["the place of the state (id, state_storage)"]
    assert changes == ["cooldown 5m -> 1m"]
    _, changes, kept = await change(plan, "nothing", "nothing")
    assert kept == []
    assert changes == ["cooldown 1m -> 5m"]


async def test_limit_of_the_jobs_is_told_by_its_keys(plan: Plan) -> None:
    """Who changes `concurrent` reads of `concurrent`, and that none is no limit."""
    _, changes, _ = await change(plan, "concurrent = 2", "")
    assert changes == ["concurrent or limit 2 -> no limit"]
