"""How hard Hypothesis tries; `docs/contributing.md` has the commands."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("thorough", max_examples=3000, deadline=None)
