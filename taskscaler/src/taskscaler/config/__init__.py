"""What an operator writes: `config.toml` of GitLab Runner, and our own settings in it."""

from __future__ import annotations

from taskscaler.config.autoscaler import (
    AutoscalerConfig,
    DefaultPolicyConfig,
    ExtensionsConfig,
    PolicyConfig,
    ScaleThrottleConfig,
    StateStorageConfig,
    VmIsolationConfig,
)
from taskscaler.config.combinations import conflicts_of
from taskscaler.config.periods import compile_period, find_zone
from taskscaler.config.ranges import out_of_range
from taskscaler.config.runners import (
    RunnerConfig,
    RunnerFile,
    config_error,
    examine_config,
    read_config,
)

__all__ = (
    "AutoscalerConfig",
    "DefaultPolicyConfig",
    "ExtensionsConfig",
    "PolicyConfig",
    "RunnerConfig",
    "RunnerFile",
    "ScaleThrottleConfig",
    "StateStorageConfig",
    "VmIsolationConfig",
    "compile_period",
    "config_error",
    "conflicts_of",
    "examine_config",
    "find_zone",
    "out_of_range",
    "read_config",
)
