"""The built-in connectors, one module for each protocol; the registry finds them by entry point."""

from __future__ import annotations

__all__ = ()
