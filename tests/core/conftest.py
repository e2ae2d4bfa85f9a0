"""How hard Hypothesis tries; `docs/contributing.md` has the commands."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "thorough", max_examples=3000, suppress_health_check=[HealthCheck.too_slow], deadline=None
)
