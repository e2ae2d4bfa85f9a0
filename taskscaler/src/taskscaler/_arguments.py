"""Checks of the arguments that the library is called with, so that a slip is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from fleeting.abc import InstanceGroup, Provider
from taskscaler.core import Settings
from taskscaler.storage import Store

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ("check_arguments", "check_key", "check_timeout", "check_type")


def check_arguments(groups: object, settings: object, store: object) -> None:
    """Check the arguments of a scaler.

    Raises:
        TypeError: one of them has the wrong type.
    """
    if isinstance(groups, str) or not isinstance(groups, Sequence):
        hint = "; write [group]" if isinstance(groups, InstanceGroup) else ""
        raise TypeError(f"groups must be a list of opened groups, not {_kind(groups)}{hint}")
    for number, group in enumerate(cast("Sequence[object]", groups)):
        if not isinstance(group, InstanceGroup):
            raise TypeError(
                f"groups[{number}] must be an opened group, not {_kind(group)}; open it with "
                "`async with provider.open(config, GroupSettings()) as group:`"
            )
    if settings is not None:
        check_type("settings", settings, Settings)
    if store is not None:
        check_type("store", store, Store)


def check_key(key: object) -> None:
    """Check the key of a task.

    Raises:
        TypeError: it is not a string.
    """
    check_type("key", key, str)


def check_timeout(timeout: object) -> None:
    """Check a timeout.

    Raises:
        TypeError: it is neither a timedelta nor None.
    """
    if timeout is None or isinstance(timeout, timedelta):
        return
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    hint = f"; write timedelta(seconds={timeout})" if number else ""
    raise TypeError(f"timeout must be a timedelta or None, not {_kind(timeout)}{hint}")


def check_type(name: str, value: object, kind: type[Any]) -> None:
    """Check an argument.

    Raises:
        TypeError: it does not have the type.
    """
    if isinstance(value, kind):
        return
    if hasattr(value, "__aenter__"):
        manager = cast("AbstractAsyncContextManager[object]", value)
        raise TypeError(
            f"{name} must be a {kind.__name__}, not {_kind(manager)}; use what its `async with` "
            "returns"
        )
    raise TypeError(f"{name} must be a {kind.__name__}, not {_kind(value)}")


def _kind(value: object) -> str:
    if isinstance(value, Provider):
        return f"the provider {value.name!r}"
    if hasattr(value, "__aenter__"):
        return "a context manager that was not entered"
    name = value.__name__ if isinstance(value, type) else value.__class__.__name__
    return f"the class {name}" if isinstance(value, type) else f"{name}"
