"""The reference of the settings has every field with its default and its docstring."""

from __future__ import annotations

from dataclasses import fields

from tests.repo.settings_reference import PAGE, render

from taskscaler import Policy, Settings


def test_settings_reference_is_up_to_date() -> None:
    """The page is the one that its program would write."""
    assert PAGE.read_text() == render(), "run: uv run python -m tests.repo.settings_reference"


def test_every_field_is_described() -> None:
    """A field that is added without a line in the docstring fails, because it has no text."""
    page = render()
    for kind in (Settings, Policy):
        for one in fields(kind):
            assert f"| `{one.name}` | " in page
    assert (
        "| `idle_count` | how many slots (not instances) should be free at any time. | `0` |"
        in page
    )
    assert "| `instance_ready_timeout` |" in page
    assert "| `5m` |" in page
