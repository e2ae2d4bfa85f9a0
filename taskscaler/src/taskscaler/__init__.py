"""As many machines as the jobs need, a slot on one for each job, and none left over."""

from __future__ import annotations

__all__ = ("__version__",)

__version__ = "1.0.0"
