"""Keys outside `[runners.autoscaler]`, which have no effect here, and keys in the wrong table.

That part of the file is GitLab Runner's. A key that we do not know may belong to a later
GitLab Runner, so it gives a warning and not an error.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from msgspec.inspect import ListType, Metadata, StructType, UnionType, type_info

from fleeting import Problem, key_path, nearest, snake_case
from fleeting.types import Severity
from taskscaler.config.runners import FileConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("ignored_keys", "unknown_elsewhere", "with_right_table")

_GLOBAL_READ = frozenset({"concurrent", "runners"})
_GLOBAL_IGNORED = frozenset(
    {
        *("artifact", "check_interval", "connection_max_age", "experimental", "labels"),
        *("listen_address", "log_format", "log_level", "machine", "sentry_dsn"),
        *("session_server", "shutdown_timeout", "user"),
    }
)
_RUNNER_READ = frozenset({"autoscaler", "id", "limit", "name", "url"})
_RUNNER_IGNORED = frozenset(
    {
        *("artifact", "builds_dir", "cache", "cache_dir", "clean_git_config", "clone_url"),
        *("custom", "custom_build_dir", "debug_trace_disabled", "docker", "environment"),
        *("executor", "experimental", "feature_flags", "force_kill_timeout"),
        *("get_sources_timeout", "graceful_kill_timeout", "instance"),
        *("job_status_final_update_retry_limit", "kubernetes", "labels", "log_format"),
        *("log_level", "machine", "monitoring", "output_limit", "parallels"),
        *("post_build_script", "post_clone_script", "post_get_sources_script"),
        *("pre_build_script", "pre_clone_script", "pre_get_sources_script", "prepare_timeout"),
        *("proxy_exec", "referees", "request_concurrency", "safe_directory_checkout", "shell"),
        *("slot_cgroup_template", "ssh", "step_runner_image", "strict_check_interval"),
        *("system_id", "tls-ca-file", "tls-cert-file", "tls-key-file", "token"),
        *("token_expires_at", "token_obtained_at", "unhealthy_interval"),
        *("unhealthy_requests_limit", "use_slot_cgroups", "virtualbox"),
    }
)
# `taskscaler.config.purpose` says what is meant, because a file with them may scale nothing.
_GLOBAL_EXPLAINED = frozenset({"jobs", "runner"})
_RUNNER_EXPLAINED = frozenset({"autoscaling"})
# These tables repeat the keys of other tables, which a misplaced key is more likely meant for.
_SECOND_PLACES = frozenset({"default_policy", "group", "vm_isolation"})
_PLUGIN_CONFIG = "[runners.autoscaler.plugin_config]"
_OFTEN_OF_A_PLUGIN = frozenset(
    {
        *("config_file", "credentials_file", "endpoint", "name", "profile", "project", "region"),
        *("resource_group_name", "subscription_id", "zone"),
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
    yield from _unknown(data, "", _GLOBAL_READ | _GLOBAL_IGNORED, _GLOBAL_EXPLAINED)
    for path, runner in _runners(data):
        yield from _unknown(runner, path, _RUNNER_READ | _RUNNER_IGNORED, _RUNNER_EXPLAINED)


def _unknown(
    table: Mapping[str, Any], path: str, known: frozenset[str], explained: frozenset[str]
) -> Iterator[Problem]:
    unknown = [key for key in table if key.lower() not in known | explained]
    # Searching for a similar key takes long, and no reader needs more hints than this.
    for number, key in enumerate(unknown):
        hint = _hint(key, known) if number < len(known) else "remove it if it is a mistake"
        yield Problem(key_path(key, path), f"unknown key; it is ignored; {hint}", Severity.WARNING)


def _hint(key: str, known: frozenset[str]) -> str:
    if tables := _tables_of(key):
        return f"move it to {tables}"
    close = nearest(key, known)
    return f"did you mean {close!r}?" if close else "remove it if it is a mistake"


def with_right_table(problem: Problem) -> Problem:
    """Name the right table in a problem about a key that belongs to another one."""
    text, separator, hint = problem.text.partition("; ")
    if text != "unknown key" or not separator:
        return problem
    table, _, key = problem.path.rpartition(".")
    if table.endswith(".autoscaler") and key in _OFTEN_OF_A_PLUGIN:
        return replace(problem, text=f"{text} here; move it to {_PLUGIN_CONFIG}")
    same_table = hint.startswith("did you mean") and f"'{snake_case(key)}'" in hint
    tables = "" if same_table else _tables_of(key)
    return replace(problem, text=f"{text} here; move it to {tables}") if tables else problem


def _tables_of(key: str) -> str:
    """Return the headers of the tables that have exactly this key; empty if none has it."""
    return " or ".join(_tables().get(snake_case(key), ()))


@functools.cache
def _tables() -> dict[str, list[str]]:
    """Return the headers of the tables that have a key, by the key."""
    found: dict[str, list[str]] = {}
    _add_tables(type_info(FileConfig), "", found)
    return found


def _add_tables(
    shape: Any, path: str, found: dict[str, list[str]], *, listed: bool = False
) -> None:
    header = f"[[{path}]]" if listed else f"[{path}]"
    match shape:
        case Metadata(type=inner) | ListType(item_type=inner):
            _add_tables(inner, path, found, listed=listed or isinstance(shape, ListType))
        case UnionType(types=types):
            for inner in types:
                _add_tables(inner, path, found, listed=listed)
        case StructType(fields=fields):
            for field in fields:
                key = field.encode_name
                if key not in _SECOND_PLACES:
                    if path:
                        found.setdefault(key, []).append(header)
                    _add_tables(field.type, f"{path}.{key}" if path else key, found)
        case _:
            pass


def _runners(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    runners = data.get("runners")
    if isinstance(runners, list):
        for index, runner in enumerate(cast("list[object]", runners)):
            if isinstance(runner, dict):
                yield f"runners[{index}]", cast("dict[str, Any]", runner)
