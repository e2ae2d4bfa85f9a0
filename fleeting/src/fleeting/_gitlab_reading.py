"""How GitLab Runner reads a `config.toml`, where that differs from TOML and from our types.

GitLab Runner is written in Go, whose decoder ignores the case of keys, and whose structs cannot
tell a zero from a key that is not set. It also writes such files itself, with a zero for each key
that is not set. So a zero means "not set" here as well, and a file that GitLab Runner has written
is read as it was meant.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin

import msgspec

from fleeting._annotations import is_struct, members
from fleeting._decoding import Problem, examine, key_path
from fleeting.errors import ConfigError
from fleeting.types import Duration

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("as_gitlab_reads", "decode_settings", "examine_settings")

T = TypeVar("T")

# These limits have no effect if they are below zero.
_LIMITS = frozenset({"limit", "max_instances", "max_use_count", "request_concurrency"})
# GitLab Runner refuses to start with less than 1.
_NEVER_ZERO = frozenset({"concurrent"})
# This table is ours, so a zero in it is a zero.
_OURS = "extensions"


def as_gitlab_reads(
    data: Mapping[str, Any], shape: type[msgspec.Struct]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return a file as GitLab Runner understands it.

    Keys get the spelling of the struct, keys with the zero of their type are left out, and so are
    limits below zero. Tables that the struct does not describe stay as they are.

    Args:
        data: the file as it was read.
        shape: describes it.

    Returns:
        The new tables, and a problem for each duration that is a bare number, which is left out.
    """
    problems: list[Problem] = []
    return _table(data, shape, "", problems, zero_is_unset=True), problems


def decode_settings(table: Mapping[str, Any], shape: type[T], *, where: str) -> T:
    """Decode the settings of a plugin, or report every mistake in them.

    Keys are read without regard to case, as GitLab's plugins do, and an empty path or duration is
    not set. Other zeros are zeros, because a plugin may have another default.

    Args:
        table: `plugin_config` of a file, or the same from a command line.
        shape: `Provider.config_type`.
        where: names the table in messages.

    Raises:
        ConfigError: with one sentence for each unknown key, missing key and wrong value.
    """
    found, problems = examine_settings(table, shape)
    if found is None or problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in problems))
    return found


def examine_settings(table: Mapping[str, Any], shape: type[T]) -> tuple[T | None, list[Problem]]:
    """Do the same as `decode_settings`, and return the problems.

    Returns:
        The settings, or None if they are not valid; and the problems in the order of the keys.
    """
    problems: list[Problem] = []
    data = dict(table)
    if is_struct(shape):
        data = _table(table, shape, "", problems, zero_is_unset=False)
    found, wrong = examine(data, shape)
    return found, problems + wrong


def _table(
    data: Mapping[str, Any],
    shape: type[msgspec.Struct],
    path: str,
    problems: list[Problem],
    *,
    zero_is_unset: bool,
) -> dict[str, Any]:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(shape)}
    folded = {name.lower(): name for name in fields}
    found: dict[str, Any] = {}
    for key, value in _respelled(data, folded, path, problems).items():
        if key not in fields:
            found[key] = value
            continue
        below = key_path(key, path)
        unset = _is_empty(value, fields[key]) or (
            zero_is_unset and key not in _NEVER_ZERO and _is_zero(key, value, fields[key])
        )
        if not unset and _is_nanoseconds(value, fields[key]):
            problems.append(Problem(below, _nanoseconds(value)))
        elif not unset:
            inside = zero_is_unset and key != _OURS
            found[key] = _value(value, fields[key], below, problems, zero_is_unset=inside)
    return found


def _respelled(
    data: Mapping[str, Any], folded: Mapping[str, str], path: str, problems: list[Problem]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for written, value in data.items():
        key = folded.get(written.lower(), written)
        first = found.get(key)
        if isinstance(first, dict) and isinstance(value, dict):
            value = {**cast("dict[str, Any]", first), **cast("dict[str, Any]", value)}  # noqa: PLW2901 -- two tables are one
        elif key in found:
            problems.append(
                Problem(key_path(written, path), f"{key!r} is written twice; remove one of them")
            )
        found[key] = value
    return found


def _value(
    value: Any, shape: Any, path: str, problems: list[Problem], *, zero_is_unset: bool
) -> Any:
    for member in members(shape):
        if is_struct(member) and isinstance(value, dict):
            table = cast("dict[str, Any]", value)
            return _table(table, member, path, problems, zero_is_unset=zero_is_unset)
        if isinstance(value, list) and (items := get_args(member)):
            return [
                _value(item, items[0], f"{path}[{index}]", problems, zero_is_unset=zero_is_unset)
                for index, item in enumerate(cast("list[Any]", value))
            ]
    return cast("Any", value)


def _is_empty(value: Any, shape: Any) -> bool:
    return value == "" and any(one in {Path, Duration} for one in members(shape))


def _is_zero(key: str, value: Any, shape: Any) -> bool:
    kinds = [get_origin(one) or one for one in members(shape)]
    match value:
        case bool():
            return False  # It may differ from our default.
        case int() | float():
            zero = value == 0 or (value < 0 and key in _LIMITS)
            return zero and any(kind in {int, float, Duration} for kind in kinds)
        case "":
            return str in kinds
        case []:
            return list in kinds
        case _:
            return False


def _is_nanoseconds(value: Any, shape: Any) -> bool:
    durations = any(isinstance(one, type) and issubclass(one, Duration) for one in members(shape))
    return durations and isinstance(value, int) and not isinstance(value, bool)


def _nanoseconds(value: int) -> str:
    try:
        meant = Duration(seconds=value // 10**9)
    except OverflowError:
        meant = Duration(0)
    example = meant if meant >= timedelta(seconds=1) else "20m"
    return (
        f"GitLab Runner reads the bare number {str(value)[:30]} as nanoseconds; write a duration "
        f'such as "{example}"'
    )
