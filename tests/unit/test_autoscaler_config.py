"""The table `[runners.autoscaler]`: GitLab's keys, our extensions, and the resulting settings."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from fleeting import Problem, decode, examine
from fleeting.types import ConnectorSettings, Severity
from taskscaler.config import AutoscalerConfig, compile_period, conflicts_of, out_of_range
from taskscaler.core import (
    Placement,
    Policy,
    ScheduledPolicy,
    Settings,
    UnknownInstances,
)

# Every key that is used, each with a value that is not its default.
WHOLE_TABLE: dict[str, Any] = {
    "capacity_per_instance": 2,
    "max_instances": 3,
    "max_use_count": 4,
    "delete_instances_on_shutdown": True,
    "instance_ready_command": "cloud-init status --wait",
    "update_interval": "2m",
    "update_interval_when_expecting": "500ms",
    "deletion_retry_interval": "3m",
    "shutdown_deletion_interval": "14s",
    "shutdown_deletion_retries": 15,
    "failure_threshold": 16,
    "reservation_throttling": True,
    "policy": [
        {
            "periods": ["* 8-17 * * 1-5", "* 9-12 * * 6"],
            "timezone": "Europe/Berlin",
            "idle_count": 5,
            "idle_time": "20m0s",
            "scale_factor": 1.5,
            "scale_factor_limit": 6,
            "preemptive_mode": False,
        }
    ],
    "scale_throttle": {"limit": 17, "burst": 18},
    "state_storage": {"keep_instance_with_acquisitions": True},
    "extensions": {
        "placement": "spread",
        "unknown_instances": "adopt",
        "creation_timeout": "7m",
        "instance_ready_timeout": "8m",
        "missed_updates": 9,
        "backoff": "10s",
        "backoff_limit": "11m",
        "cooldown": "19m",
        "operation_timeout": "12s",
        "shutdown_timeout": "13s",
        "increase_interval": "20s",
        "heartbeat_interval": "21m",
        "probe_after": "22s",
        "probe_timeout": "23s",
        "remove_unhealthy_with_tasks": True,
        "max_instance_age": "24h",
        "suspend_time_to_live": "25h",
        "default_policy": {"idle_count": 1, "idle_time": "26m"},
    },
}


NO_PERIODS: list[str] = []


def read(table: dict[str, Any]) -> AutoscalerConfig:
    """Decode a table."""
    return decode(table, AutoscalerConfig, where="test")


def problems(table: dict[str, Any]) -> list[str]:
    """Return the problems of a table that can be decoded."""
    config = read(table)
    return [str(found) for found in (*out_of_range(config, "a"), *conflicts_of(config, "a"))]


def value_problems(table: dict[str, Any]) -> list[Problem]:
    """Return the problems of single values, of decoding and of the checks that follow it."""
    config, found = examine({"a": table}, _Whole)
    assert config is not None
    return [*found, *out_of_range(config.a, "a")]


class _Whole(msgspec.Struct):
    a: AutoscalerConfig


def test_empty_table_gives_the_defaults() -> None:
    """Missing keys have the same defaults as in the library."""
    assert AutoscalerConfig().settings() == Settings()


def test_every_key_reaches_the_scaler() -> None:
    """A table with every key gives settings in which no value is the default."""
    assert problems(WHOLE_TABLE) == []
    settings = read(WHOLE_TABLE).settings({"aws/eu": 27})
    day = Policy(5, timedelta(minutes=20), 1.5, 6, preemptive_mode=False)
    periods = (compile_period("* 8-17 * * 1-5"), compile_period("* 9-12 * * 6"))
    assert settings == Settings(
        capacity_per_instance=2,
        max_instances=3,
        max_use_count=4,
        group_limits={"aws/eu": 27},
        policy=Policy(1, timedelta(minutes=26)),
        schedule=(ScheduledPolicy(day, periods, ZoneInfo("Europe/Berlin")),),
        placement=Placement.SPREAD,
        reservation_throttling=True,
        unknown_instances=UnknownInstances.ADOPT,
        keep_instance_with_acquisitions=True,
        instance_ready_command="cloud-init status --wait",
        instance_ready_timeout=timedelta(minutes=8),
        update_interval=timedelta(minutes=2),
        update_interval_when_expecting=timedelta(milliseconds=500),
        creation_timeout=timedelta(minutes=7),
        deletion_retry_interval=timedelta(minutes=3),
        missed_updates=9,
        throttle_limit=17.0,
        throttle_burst=18,
        increase_interval=timedelta(seconds=20),
        backoff=timedelta(seconds=10),
        backoff_limit=timedelta(minutes=11),
        cooldown=timedelta(minutes=19),
        operation_timeout=timedelta(seconds=12),
        heartbeat_interval=timedelta(minutes=21),
        probe_after=timedelta(seconds=22),
        probe_timeout=timedelta(seconds=23),
        failure_threshold=16,
        remove_unhealthy_with_tasks=True,
        max_instance_age=timedelta(hours=24),
        suspend_time_to_live=timedelta(hours=25),
        delete_instances_on_shutdown=True,
        shutdown_deletion_interval=timedelta(seconds=14),
        shutdown_deletion_retries=15,
        shutdown_timeout=timedelta(seconds=13),
    )
    default = Settings()
    names = [
        name for name in Settings.__slots__ if getattr(settings, name) == getattr(default, name)
    ]
    assert names == []


def test_zero_means_the_default_as_in_gitlab() -> None:
    """Zero means the default for the keys for which GitLab says so, without a problem."""
    table = {
        "max_instances": 0,
        "instance_acquire_timeout": "0s",
        "update_interval": "0",
        "update_interval_when_expecting": "0",
        "deletion_retry_interval": "0s",
        "shutdown_deletion_interval": "0s",
        "shutdown_deletion_retries": 0,
        "failure_threshold": 0,
        "scale_throttle": {"limit": 0, "burst": 0},
        "connector_config": {"protocol_port": 0, "keepalive": "0s", "timeout": "0s"},
    }
    assert problems(table) == []
    config = read(table)
    assert config.settings() == Settings()
    assert config.acquire_timeout == timedelta(minutes=15)
    assert config.groups()[0].connector == ConnectorSettings()


@pytest.mark.parametrize(("limit", "rate"), [(0, 100.0), (-1, math.inf), (3, 3.0)])
def test_limit_of_the_throttle(limit: int, rate: float) -> None:
    """Zero is the default, -1 means no limit, other numbers are the limit."""
    assert read({"scale_throttle": {"limit": limit}}).settings().throttle_limit == rate


def test_idle_time_without_a_policy_in_force_is_five_minutes() -> None:
    """While none of the policies is in force, idle instances stay for 5 minutes."""
    settings = read({"policy": [{"periods": ["* 8 * * *"], "idle_count": 3}]}).settings()
    assert settings.policy == Policy(idle_time=timedelta(minutes=5))
    assert [entry.policy.idle_count for entry in settings.schedule] == [3]


def test_policy_that_is_always_in_force_is_the_default() -> None:
    """Policies before it are never in force; policies after it may be."""
    table = {
        "policy": [
            {"periods": ["* 8 * * *"], "idle_count": 1},
            {"periods": ["* 9 * * *", " *  * * * * "], "idle_count": 2},
            {"periods": ["* 10 * * *"], "idle_count": 3},
        ],
        "extensions": {"default_policy": {"idle_count": 4}},
    }
    settings = read(table).settings()
    assert settings.policy.idle_count == 2
    assert [entry.policy.idle_count for entry in settings.schedule] == [3]


def test_groups_inherit_key_by_key() -> None:
    """A group inherits missing keys from the autoscaler if it has the same plugin."""
    config = read(
        {
            "plugin": "aws",
            "plugin_config": {"region": "eu", "name": "a"},
            "connector_config": {"username": "me", "use_external_addr": True, "timeout": "1m"},
            "extensions": {
                "group": [
                    {"name": "spot", "plugin_config": {"name": "b"}, "max_instances": 7},
                    {"connector_config": {"username": "you", "use_external_addr": False}},
                    {"plugin": "azure", "plugin_config": {"name": "c"}},
                ]
            },
        }
    )
    groups = config.groups()
    assert [(group.name, group.plugin, group.max_instances) for group in groups] == [
        ("spot", "aws", 7),
        ("2", "aws", 0),
        ("3", "azure", 0),
    ]
    assert [group.plugin_config for group in groups] == [
        {"region": "eu", "name": "b"},
        {"region": "eu", "name": "a"},
        {"name": "c"},
    ]
    timeout = timedelta(minutes=1)
    assert [group.connector for group in groups] == [
        ConnectorSettings(username="me", use_external_addr=True, timeout=timeout),
        ConnectorSettings(username="you", timeout=timeout),
        ConnectorSettings(username="me", use_external_addr=True, timeout=timeout),
    ]


def test_autoscaler_without_groups_is_one_group() -> None:
    """Without a list of groups, the plugin of the autoscaler is the only group."""
    config = read({"plugin": "aws", "plugin_config": {"name": "a"}})
    (group,) = config.groups()
    assert (group.plugin, group.plugin_config) == ("aws", {"name": "a"})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"capacity_per_instance": 0}, "a.capacity_per_instance: must be at least 1, got 0"),
        (
            {"capacity_per_instance": 10**7},
            "a.capacity_per_instance: must be at most 1000000, got 10000000",
        ),
        ({"max_instances": -1}, "a.max_instances: must be at least 0, got -1"),
        ({"max_use_count": -1}, "a.max_use_count: must be at least 0, got -1"),
        ({"update_interval": "-1s"}, 'a.update_interval: must be at least 0s, got "-1s"'),
        ({"failure_threshold": -1}, "a.failure_threshold: must be at least 0, got -1"),
        (
            {"shutdown_deletion_retries": -1},
            "a.shutdown_deletion_retries: must be at least 0, got -1",
        ),
        ({"scale_throttle": {"limit": -2}}, "a.scale_throttle.limit: must be at least -1, got -2"),
        ({"scale_throttle": {"burst": -1}}, "a.scale_throttle.burst: must be at least 0, got -1"),
        ({"policy": [{"idle_count": -1}]}, "a.policy[0].idle_count: must be at least 0, got -1"),
        (
            {"policy": [{"idle_time": "-1s"}]},
            'a.policy[0].idle_time: must be at least 0s, got "-1s"',
        ),
        (
            {"policy": [{"scale_factor": float("nan")}]},
            "a.policy[0].scale_factor: must be at least 0, got nan",
        ),
        (
            {"policy": [{"scale_factor": 1e308}]},
            "a.policy[0].scale_factor: must be at most 1000000, got 1e+308",
        ),
        (
            {"extensions": {"cooldown": "900000h"}},
            'a.extensions.cooldown: must be at most 36,500 days, got "900000h"',
        ),
        (
            {"policy": [{"periods": NO_PERIODS}]},
            "a.policy[0].periods: a policy without a period is never",
        ),
        ({"policy": [{"periods": ["* * *"]}]}, "a.policy[0].periods[0]: '* * *' has 3 fields"),
        ({"policy": [{"timezone": "X"}]}, "a.policy[0].timezone: the time zone 'X' does not exist"),
        (
            {"extensions": {"missed_updates": 0}},
            "a.extensions.missed_updates: must be at least 1, got 0",
        ),
        ({"extensions": {"backoff": "0s"}}, 'a.extensions.backoff: must be more than 0s, got "0s"'),
        (
            {"extensions": {"cooldown": "-1s"}},
            'a.extensions.cooldown: must be at least 0s, got "-1s"',
        ),
        ({"extensions": {"id": "../x"}}, "a.extensions.id: '../x' cannot name a state file"),
        ({"extensions": {"id": ".."}}, "a.extensions.id: '..' cannot name a state file"),
        (
            {"extensions": {"default_policy": {"idle_count": -1}}},
            "a.extensions.default_policy.idle_count: must be at least 0, got -1",
        ),
        (
            {"extensions": {"group": [{"max_instances": -1}]}},
            "a.extensions.group[0].max_instances: must be at least 0, got -1",
        ),
        (
            {"connector_config": {"protocol_port": 65536}},
            "a.connector_config.protocol_port: must be at most 65535, got 65536",
        ),
        ({"vm_isolation": {"enabled": True}}, "a.vm_isolation.enabled: virtual machines on the"),
    ],
)
def test_values_out_of_range_are_refused(table: dict[str, Any], expected: str) -> None:
    """The message names the key, the limit and the value."""
    (problem,) = value_problems(table)
    assert str(problem).startswith(expected)
    assert problem.severity is Severity.ERROR


ALWAYS: dict[str, Any] = {"idle_count": 1}
DAY: dict[str, Any] = {"periods": ["* 8 * * *"], "timezone": "UTC", "idle_count": 1}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            {"policy": [{**DAY, "idle_count": 5, "scale_factor": 1, "scale_factor_limit": 3}]},
            "a.policy[0].scale_factor_limit: 3 is below idle_count = 5, so scale_factor has no",
        ),
        (
            {"policy": [{**DAY, "scale_factor_limit": 3}]},
            "a.policy[0].scale_factor_limit: it has no effect without scale_factor",
        ),
        (
            {"max_instances": 2, "capacity_per_instance": 2, "policy": [{**DAY, "idle_count": 5}]},
            "a.policy[0].idle_count: 5 free slots are more than the 4 slots of max_instances = 2",
        ),
        (
            {"max_instances": 2, "extensions": {"default_policy": {"idle_count": 3}}},
            "a.extensions.default_policy.idle_count: 3 free slots are more than the 2 slots",
        ),
        (
            {"policy": [DAY, ALWAYS]},
            "a.policy[0].periods: it is never in force, because policy[1] always is",
        ),
        (
            {"policy": [ALWAYS], "extensions": {"default_policy": {}}},
            "a.extensions.default_policy: it is never in force, because policy[0] always is",
        ),
        (
            {"extensions": {"backoff": "10m"}},
            "a.extensions.backoff: '10m' is longer than backoff_limit = '5m'",
        ),
        (
            {"update_interval": "1s"},
            "a.update_interval_when_expecting: '2s' is longer than update_interval = '1s'",
        ),
    ],
)
def test_surprising_settings_are_warnings(table: dict[str, Any], expected: str) -> None:
    """Settings that work differently from how they read give a warning with the numbers."""
    assert list(out_of_range(read(table), "a")) == []
    (problem,) = conflicts_of(read(table), "a")
    assert str(problem).startswith(expected)
    assert problem.severity is Severity.WARNING


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            [{"plugin_config": {"name": "x"}}, {"plugin_config": {"name": "x"}}],
            "a.extensions.group[1].plugin_config: it is the same group as extensions.group[0]",
        ),
        (
            [{"name": "2", "plugin_config": {"name": "x"}}, {"plugin_config": {"name": "y"}}],
            "a.extensions.group: 2 groups are named '2'",
        ),
    ],
)
def test_equal_groups_and_names_are_refused(groups: list[dict[str, Any]], expected: str) -> None:
    """Two groups with the same configuration or the same name are refused."""
    (problem,) = conflicts_of(read({"plugin": "aws", "extensions": {"group": groups}}), "a")
    assert str(problem).startswith(expected)
    assert problem.severity is Severity.ERROR


def test_secrets_are_not_shown() -> None:
    """A repr does not contain settings of the plugin or passwords."""
    group = {"plugin_config": {"token": "s3cret"}, "connector_config": {"password": "s3cret"}}
    config = read({**group, "extensions": {"group": [group]}})
    shown = repr(config) + repr(config.extensions) + repr(config.groups())
    assert "s3cret" not in shown
    assert "AutoscalerConfig" in shown


def test_paths_are_decoded() -> None:
    """The folder of the state and the file of the key are paths."""
    config = read({"state_storage": {"dir": "/x"}, "extensions": {"state_key_file": "/y"}})
    assert (config.state_storage.dir, config.extensions.state_key_file) == (Path("/x"), Path("/y"))


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"connector_config": {"slot_users": ["a"]}}, "a"),
        (
            {"extensions": {"group": [{"connector_config": {"slot_users": ["a"]}}]}},
            "a.extensions.group[0]",
        ),
    ],
)
def test_each_slot_needs_a_user(table: dict[str, Any], place: str) -> None:
    """A slot without a user is refused before a job gets it."""
    (problem,) = conflicts_of(read({"plugin": "aws", "capacity_per_instance": 2, **table}), "a")
    assert str(problem) == (
        f"{place}.connector_config.slot_users: it names 1 users for the 2 slots of "
        "capacity_per_instance; name one user for each slot"
    )
    assert problem.severity is Severity.ERROR
