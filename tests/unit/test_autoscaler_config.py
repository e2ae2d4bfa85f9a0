"""The autoscaler table: GitLab's keys, ours, and what becomes of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fleeting.config import decode
from taskscaler.config import AutoscalerConfig, not_honoured, out_of_range
from taskscaler.core.settings import Placement, Policy, Settings, UnknownInstances


def test_empty_table_means_the_defaults() -> None:
    """What is not written has the same default as in the library."""
    assert AutoscalerConfig().settings() == Settings()


def test_every_key_reaches_the_scaler() -> None:
    """A table with every key becomes settings in which every value is another than by default."""
    table: dict[str, Any] = {
        "capacity_per_instance": 2,
        "max_instances": 3,
        "max_use_count": 4,
        "delete_instances_on_shutdown": True,
        "instance_ready_command": "cloud-init status --wait",
        "update_interval": "2m",
        "update_interval_when_expecting": "500ms",
        "deletion_retry_interval": "3m",
        "policy": [
            {
                "periods": ["* * * * *"],
                "idle_count": 5,
                "idle_time": "20m0s",
                "scale_factor": 1.5,
                "scale_factor_limit": 6,
                "preemptive_mode": False,
            }
        ],
        "extensions": {
            "placement": "spread",
            "unknown_instances": "adopt",
            "creation_timeout": "7m",
            "instance_ready_timeout": "8m",
            "missed_updates": 9,
            "backoff": "10s",
            "backoff_limit": "11m",
            "operation_timeout": "12s",
            "shutdown_timeout": "13s",
        },
    }
    assert list(not_honoured(table, "")) == []
    config = decode(table, AutoscalerConfig, where="test")
    assert list(out_of_range(config, "")) == []
    settings = config.settings()
    assert settings == Settings(
        capacity_per_instance=2,
        max_instances=3,
        max_use_count=4,
        policy=Policy(5, timedelta(minutes=20), 1.5, 6, preemptive_mode=False),
        placement=Placement.SPREAD,
        unknown_instances=UnknownInstances.ADOPT,
        instance_ready_command="cloud-init status --wait",
        instance_ready_timeout=timedelta(minutes=8),
        update_interval=timedelta(minutes=2),
        update_interval_when_expecting=timedelta(milliseconds=500),
        creation_timeout=timedelta(minutes=7),
        deletion_retry_interval=timedelta(minutes=3),
        missed_updates=9,
        backoff=timedelta(seconds=10),
        backoff_limit=timedelta(minutes=11),
        operation_timeout=timedelta(seconds=12),
        delete_instances_on_shutdown=True,
        shutdown_timeout=timedelta(seconds=13),
    )
    default = Settings()
    names = [
        name for name in Settings.__slots__ if getattr(settings, name) == getattr(default, name)
    ]
    assert names == []


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"scale_throttle": {"limit": 1}}, "a.scale_throttle: GitLab's autoscaler has this key"),
        ({"state_storage": {}}, "a.state_storage: GitLab's autoscaler has this key"),
        ({"policy": [{}, {}]}, "a.policy: 2 entries, but this version honours one only"),
        ({"policy": [{"timezone": "UTC"}]}, "a.policy[0].timezone: a policy that holds at some"),
        ({"policy": [{"periods": ["0 8 * * *"]}]}, "a.policy[0].periods: a policy that holds at"),
    ],
)
def test_keys_of_gitlab_that_mean_nothing_yet_are_refused(
    table: dict[str, Any], expected: str
) -> None:
    """A key that GitLab knows is not called unknown, and never silently ignored."""
    (problem,) = not_honoured(table, "a.")
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"capacity_per_instance": 0}, "a.capacity_per_instance: 0 is not 1 or more"),
        ({"max_instances": -1}, "a.max_instances: -1 is not 0 or more"),
        ({"max_use_count": -1}, "a.max_use_count: -1 is not 0 or more"),
        ({"update_interval": "0"}, "a.update_interval: '0s' is too short"),
        ({"policy": [{"idle_count": -1}]}, "a.policy[0].idle_count: -1 is not 0 or more"),
        ({"policy": [{"idle_time": "-1s"}]}, "a.policy[0].idle_time: '-1s' is too short"),
        ({"policy": [{"scale_factor": float("nan")}]}, "a.policy[0].scale_factor: nan is not 0"),
        ({"extensions": {"missed_updates": 0}}, "a.extensions.missed_updates: 0 is not 1"),
        ({"connector_config": {"protocol_port": 0}}, "a.connector_config.protocol_port: 0 is no"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(table: dict[str, Any], expected: str) -> None:
    """Each number is held against its range, and the sentence names its key."""
    (problem,) = out_of_range(decode(table, AutoscalerConfig, where="test"), "a.")
    assert problem.startswith(expected)


def test_secrets_are_not_shown() -> None:
    """What a plugin is configured with does not get into a log by accident."""
    config = decode({"plugin_config": {"token": "s3cret"}}, AutoscalerConfig, where="test")
    assert "s3cret" not in repr(config)
