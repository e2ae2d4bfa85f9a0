"""News since the last decision, as far as the next one depends on it.

The parts of the model report here what changes in them, so a handler cannot
forget it. At the end of every event the machine computes from this, once, when
the next decision is due (`rules/waking.py`).
"""

from __future__ import annotations

__all__ = ("CHANGED", "CHECKED", "EASED", "SOON", "TAKEN", "Agenda")

# Something that any decision may depend on: decide now.
CHANGED = 1

# Something that no task waits for: decide without haste.
SOON = 2

# Fewer slots are free: decide without haste, if the policy wants idle capacity.
TAKEN = 4

# Capacity was given back, or is needed less: decide when an instance was idle long enough.
EASED = 8

# A check has ended: decide when the next one is due.
CHECKED = 16


class Agenda:
    """Collects the reasons to decide again.

    Attributes:
        news: the constants above, as bits; 0 if nothing happened.
    """

    __slots__ = ("news",)

    def __init__(self) -> None:
        self.news = 0
