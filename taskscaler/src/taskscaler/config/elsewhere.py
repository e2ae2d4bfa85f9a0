"""Keys outside `[runners.autoscaler]`, which have no effect here.

That part of the file is GitLab Runner's. A key that we do not know may belong to a later
GitLab Runner, so it gives a warning and not an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fleeting import Problem, key_path, nearest
from fleeting.types import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("ignored_keys", "unknown_elsewhere")

_GLOBAL_READ = frozenset({"concurrent", "runners"})
_GLOBAL_IGNORED = frozenset(
    {
        *("check_interval", "connection_max_age", "experimental", "labels", "listen_address"),
        *("log_format", "log_level", "machine", "sentry_dsn", "session_server"),
        *("shutdown_timeout", "user"),
    }
)
_RUNNER_READ = frozenset({"autoscaler", "id", "limit", "name", "url"})
_RUNNER_IGNORED = frozenset(
    {
        *("builds_dir", "cache", "cache_dir", "clean_git_config", "clone_url", "custom"),
        *("custom_build_dir", "debug_trace_disabled", "docker", "environment", "executor"),
        *("feature_flags", "instance", "job_status_final_update_retry_limit", "kubernetes"),
        *("labels", "machine", "monitoring", "output_limit", "parallels", "post_build_script"),
        *("post_clone_script", "post_get_sources_script", "pre_build_script"),
        *("pre_clone_script", "pre_get_sources_script", "proxy_exec", "referees"),
        *("request_concurrency", "safe_directory_checkout", "shell", "slot_cgroup_template"),
        *("ssh", "strict_check_interval", "system_id", "tls-ca-file", "tls-cert-file"),
        *("tls-key-file", "token", "token_expires_at", "token_obtained_at"),
        *("unhealthy_interval", "unhealthy_requests_limit", "use_slot_cgroups", "virtualbox"),
    }
)
# Known keys in the autoscaler's own table that have no effect on scaling either.
_AUTOSCALER_IGNORED = frozenset(
    {
        "instance_creation_time_buckets",
        "instance_deletion_time_buckets",
        "instance_is_running_time_buckets",
        "instance_life_duration_buckets",
        "instance_operation_time_buckets",
        "instance_readiness_time_buckets",
        "log_external_ip",
        "log_internal_ip",
        "vm_isolation",
    }
)


def ignored_keys(data: Mapping[str, Any]) -> Iterator[str]:
    """Find the keys that have no effect here.

    Args:
        data: a whole `config.toml`, of any shape.

    Yields:
        The path of each key; a runner without an autoscaler is one path.
    """
    yield from (key_path(key) for key in data if key not in _GLOBAL_READ)
    for path, runner in _runners(data):
        autoscaler = runner.get("autoscaler")
        if not isinstance(autoscaler, dict):
            yield path
            continue
        yield from (key_path(key, path) for key in runner if key not in _RUNNER_READ)
        for key in cast("dict[str, Any]", autoscaler):
            if key in _AUTOSCALER_IGNORED:
                yield key_path(key, f"{path}.autoscaler")


def unknown_elsewhere(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Find the keys outside of the autoscaler's table that GitLab Runner does not know.

    Args:
        data: a whole `config.toml`, of any shape.
    """
    yield from _unknown(data, "", _GLOBAL_READ | _GLOBAL_IGNORED)
    for path, runner in _runners(data):
        yield from _unknown(runner, path, _RUNNER_READ | _RUNNER_IGNORED)


def _unknown(table: Mapping[str, Any], path: str, known: frozenset[str]) -> Iterator[Problem]:
    unknown = [key for key in table if key not in known]
    # Searching for a similar key takes long, and no reader needs more hints than this.
    for number, key in enumerate(unknown):
        close = nearest(key, known) if number < len(known) else None
        hint = f"did you mean {close!r}?" if close else "remove it if it is a mistake"
        text = f"unknown key; it is ignored; {hint}"
        yield Problem(key_path(key, path), text, Severity.WARNING)


def _runners(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    runners = data.get("runners")
    if isinstance(runners, list):
        for index, runner in enumerate(cast("list[object]", runners)):
            if isinstance(runner, dict):
                yield f"runners[{index}]", cast("dict[str, Any]", runner)
