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
    _, changes, _ = await change(plan, "concurrent = 2", "")
    assert changes == ["concurrent or limit 2 -> no limit"]
