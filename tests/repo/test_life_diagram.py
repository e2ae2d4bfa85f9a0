"""The diagram in the documentation is the table in the code."""

from __future__ import annotations

import re
from pathlib import Path

from taskscaler.core import TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs" / "decisions.md"


def diagram() -> str:
    """Draw the table of an instance's life."""
    lines = [
        f"    {phase.value} --> {then.value}: {trigger.value}"
        for phase, moves in TRANSITIONS.items()
        for trigger, then in moves.items()
    ]
    return "\n".join(["stateDiagram-v2", *lines])


def test_documented_life_is_the_table_in_the_code() -> None:
    """The arrows of the documented diagram are the transitions of the table."""
    drawn = re.search(r"```mermaid\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert drawn is not None
    assert drawn[1] == diagram(), f"draw this in {PAGE.name}:\n{diagram()}"
