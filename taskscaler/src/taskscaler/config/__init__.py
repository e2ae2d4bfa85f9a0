"""What an operator writes: `[autoscaler]`, with the keys of GitLab's `[runners.autoscaler]`."""

from __future__ import annotations

from taskscaler.config.autoscaler import (
    AutoscalerConfig,
    ExtensionsConfig,
    PolicyConfig,
    not_honoured,
    out_of_range,
)

__all__ = ("AutoscalerConfig", "ExtensionsConfig", "PolicyConfig", "not_honoured", "out_of_range")
