"""Phrases that several sentences share."""

from __future__ import annotations

__all__ = ("counted", "plural")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 task`, `2 tasks`."""
    return f"{count} {plural(count, noun)}"


def plural(count: int, noun: str) -> str:
    """Return a noun as it follows a count."""
    return noun if abs(count) == 1 else f"{noun}s"
