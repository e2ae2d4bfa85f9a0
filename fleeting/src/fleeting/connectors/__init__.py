"""Ways to an instance, one module for each protocol; found by the protocol's name."""

from __future__ import annotations

__all__ = ()
