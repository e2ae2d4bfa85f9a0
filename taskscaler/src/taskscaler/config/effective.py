"""The effective settings of a runner, key by key, and the source of each value.

They contain no secret: a password and the settings of a plugin are shown as "(set)".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from fleeting import key_path
from taskscaler.config.autoscaler import ZERO_IS_DEFAULT, AutoscalerConfig, PolicyConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fleeting.types import ConnectorSettings
    from taskscaler.config.autoscaler import DefaultPolicyConfig
    from taskscaler.config.runners import RunnerConfig

__all__ = ("SET", "EffectiveValue", "effective_values", "toml_lines")

# Shown in place of a secret.
SET = "(set)"
_FILE, _OURS, _GITLABS = "file", "default", "GitLab's default"
# The keys whose default differs from GitLab's.
_OUR_DEFAULTS = frozenset({"capacity_per_instance", "dir", "enabled", "reservation_throttling"})
_AUTOSCALER_KEYS = (
    "plugin",
    "capacity_per_instance",
    "max_instances",
    "max_use_count",
    "delete_instances_on_shutdown",
    "instance_ready_command",
    "instance_acquire_timeout",
    "update_interval",
    "update_interval_when_expecting",
    "deletion_retry_interval",
    "shutdown_deletion_interval",
    "shutdown_deletion_retries",
    "failure_threshold",
    "reservation_throttling",
)


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One key of a runner, with its effective value.

    Attributes:
        table: the header of its table, such as `[runners.autoscaler]`.
        key: its name.
        value: text, a number, true or false, or a list of text.
        source: `file`, `default`, or `GitLab's default` where that is the same; or why the default
            does not apply.
    """

    table: str
    key: str
    value: str | float | bool | list[str]
    source: str


def effective_values(
    runner: RunnerConfig, written: Mapping[str, Any], config_path: Path
) -> list[EffectiveValue]:
    """Return the effective settings of a runner with an autoscaler.

    Args:
        runner: the runner as it was read.
        written: its table in the file, as GitLab Runner reads it.
        config_path: the path of the file.
    """
    config = runner.autoscaler or AutoscalerConfig()
    table = _table(written, "autoscaler")
    return [
        *_runner(runner, written),
        *_autoscaler(config, table),
        *_secret("[runners.autoscaler.plugin_config]", config.plugin_config),
        *_connector("[runners.autoscaler.connector_config]", config.connector_config.settings()),
        *_policies(config, table),
        *_throttle(config, _table(table, "scale_throttle")),
        *_storage(runner, config, _table(table, "state_storage"), config_path),
        *_identity(runner, config_path),
        *_extensions(config, _table(table, "extensions")),
    ]


def toml_lines(values: list[EffectiveValue]) -> Iterator[str]:
    """Write values as TOML, each with its source as a comment."""
    table = ""
    texts = [f"{value.key} = {_literal(value.value)}" for value in values]
    width = min(60, max(map(len, texts), default=0))
    for value, text in zip(values, texts, strict=True):
        if value.table != table:
            if table:
                yield ""
            # TOML does not number the entries of a list, so the number is a comment.
            table = value.table
            header, _, number = table.partition(" ")
            yield f"{header}{number and f'  # {number}'}"
        yield f"{text:<{width}}  # {value.source}"


def _literal(value: object) -> str:
    # A JSON string is a TOML string, except for characters that TOML wants escaped, or a terminal.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _table(above: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: object = above.get(key)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return list(cast("tuple[object, ...]", value))
    return str(value) if isinstance(value, timedelta | Path) else value


def _runner(runner: RunnerConfig, written: Mapping[str, Any]) -> Iterator[EffectiveValue]:
    table = "[[runners]]"
    yield EffectiveValue(table, "name", runner.name, _source("name", written, default=_GITLABS))
    for key in ("id", "limit"):
        value = getattr(runner, key)
        if value is not None:
            yield EffectiveValue(table, key, value, _source(key, written, default=_GITLABS))
    if runner.url:
        yield EffectiveValue(table, "url", runner.shown_url(), _FILE)


def _source(key: str, written: Mapping[str, Any], *, default: str) -> str:
    # A duration of zero is the default for these keys; other zeros are not in `written`.
    is_zero = key in ZERO_IS_DEFAULT and written.get(key) in {"0", "0s"}
    return _FILE if key in written and not is_zero else default


def _autoscaler(config: AutoscalerConfig, written: Mapping[str, Any]) -> Iterator[EffectiveValue]:
    for key in _AUTOSCALER_KEYS:
        if key in ZERO_IS_DEFAULT:
            value = config.effective(key)
        elif key == "instance_acquire_timeout":
            value = config.acquire_timeout
        elif key in {"delete_instances_on_shutdown", "reservation_throttling"}:
            value = bool(getattr(config, key))
        else:
            value = getattr(config, key)
            value = 0 if value is None else value
        default = _OURS if key in _OUR_DEFAULTS else _GITLABS
        source = _source(key, written, default=default)
        yield EffectiveValue("[runners.autoscaler]", key, _plain(value), source)


def _secret(table: str, config: Mapping[str, Any]) -> Iterator[EffectiveValue]:
    # Only the plugin knows which of its settings are secrets.
    for key in config:
        yield EffectiveValue(table, key_path(key), SET, _FILE)


def _connector(table: str, settings: ConnectorSettings) -> Iterator[EffectiveValue]:
    for field in fields(settings):
        if value := getattr(settings, field.name):
            if field.name == "jump":
                shown: str | float | bool | list[str] = [str(one.jump) for one in settings.jump]
            else:
                # A command may contain a token, as a password is one.
                shown = SET if field.name in {"password", "proxy_command"} else _plain(value)
            yield EffectiveValue(table, field.name, shown, _FILE)


def _policies(config: AutoscalerConfig, written: Mapping[str, Any]) -> Iterator[EffectiveValue]:
    entries = cast("list[dict[str, Any]]", written.get("policy", []))
    for index, (policy, entry) in enumerate(zip(config.policy, entries, strict=True)):
        yield from _policy(f"[[runners.autoscaler.policy]] policy[{index}]", policy, entry)
    default = _table(_table(written, "extensions"), "default_policy")
    table = "[runners.autoscaler.extensions.default_policy]"
    yield from _policy(table, config.default_policy(), default, source=_OURS)


def _policy(
    table: str, policy: DefaultPolicyConfig, written: Mapping[str, Any], source: str = _GITLABS
) -> Iterator[EffectiveValue]:
    values = msgspec.structs.asdict(policy)
    values["preemptive_mode"] = policy.preemptive
    # A policy that is always in force needs no zone, and this computer's may be unknown.
    if isinstance(policy, PolicyConfig) and not (policy.timezone or policy.always):
        values["timezone"] = str(policy.zone())
    for key, value in values.items():
        yield EffectiveValue(table, key, _plain(value), _source(key, written, default=source))


def _throttle(config: AutoscalerConfig, written: Mapping[str, Any]) -> Iterator[EffectiveValue]:
    table = "[runners.autoscaler.scale_throttle]"
    throttle = config.scale_throttle
    limit = -1 if math.isinf(throttle.rate) else int(throttle.rate)
    yield EffectiveValue(table, "limit", limit, _FILE if written.get("limit") else _GITLABS)
    burst = throttle.burst or config.max_instances or max(limit, 0)
    yield EffectiveValue(table, "burst", burst, _FILE if written.get("burst") else _GITLABS)


def _storage(
    runner: RunnerConfig,
    config: AutoscalerConfig,
    written: Mapping[str, Any],
    config_path: Path,
) -> Iterator[EffectiveValue]:
    table = "[runners.autoscaler.state_storage]"
    path = runner.state_path(config_path)
    yield EffectiveValue(
        table, "enabled", path is not None, _source("enabled", written, default=_OURS)
    )
    if path is not None:
        yield EffectiveValue(table, "dir", str(path.parent), _source("dir", written, default=_OURS))
    keeps = config.state_storage.keep_instance_with_acquisitions
    key = "keep_instance_with_acquisitions"
    yield EffectiveValue(table, key, keeps, _source(key, written, default=_GITLABS))


def _identity(runner: RunnerConfig, config_path: Path) -> Iterator[EffectiveValue]:
    identity = runner.identity(config_path)
    if runner.autoscaler is None or runner.autoscaler.extensions.id is not None:
        return  # It is shown as any other key.
    source = f"from {identity.source}; if they change, the state is not found again"
    yield EffectiveValue("[runners.autoscaler.extensions]", "id", identity.name, source)


def _extensions(config: AutoscalerConfig, written: Mapping[str, Any]) -> Iterator[EffectiveValue]:
    table = "[runners.autoscaler.extensions]"
    extensions = config.extensions
    for key in extensions.__struct_fields__:
        value = getattr(extensions, key)
        if key not in {"default_policy", "group"} and value is not None:
            source = _source(key, written, default=_OURS)
            yield EffectiveValue(table, key, _plain(value), source)
    if extensions.group:
        yield from _groups(config, cast("list[dict[str, Any]]", written["group"]))


def _groups(config: AutoscalerConfig, written: list[dict[str, Any]]) -> Iterator[EffectiveValue]:
    above = "runners.autoscaler.extensions.group"
    for index, (group, entry) in enumerate(zip(config.groups(), written, strict=True)):
        table = f"[[{above}]] group[{index}]"
        yield EffectiveValue(table, "name", group.name, _source("name", entry, default=_OURS))
        yield EffectiveValue(table, "plugin", group.plugin, _FILE)
        source = _source("max_instances", entry, default=_OURS)
        yield EffectiveValue(table, "max_instances", group.max_instances, source)
        yield from _secret(f"[{above}.plugin_config] group[{index}]", group.plugin_config)
        yield from _connector(f"[{above}.connector_config] group[{index}]", group.connector)
