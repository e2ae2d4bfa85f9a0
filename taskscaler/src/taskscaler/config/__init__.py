"""GitLab Runner's `config.toml`, with our own settings in it."""

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
from taskscaler.config.reading import (
    RunnerFile,
    check_config,
    config_error,
    examine_config,
    read_config,
)
from taskscaler.config.runners import FileConfig, RunnerConfig

__all__ = (
    "AutoscalerConfig",
    "DefaultPolicyConfig",
    "ExtensionsConfig",
    "FileConfig",
    "PolicyConfig",
    "RunnerConfig",
    "RunnerFile",
    "ScaleThrottleConfig",
    "StateStorageConfig",
    "VmIsolationConfig",
    "check_config",
    "compile_period",
    "config_error",
    "conflicts_of",
    "examine_config",
    "find_zone",
    "out_of_range",
    "read_config",
)
