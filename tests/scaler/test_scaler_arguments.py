"""Wrong arguments of the library are told at once, and a group belongs to one scaler."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sniffio

from fleeting import Registry
from fleeting.errors import ConfigError, GroupHeld
from fleeting.testing import FakeInstanceGroup
from fleeting.types import GroupSettings
from taskscaler import IllegalEvent, Policy, ScalerClosed, Settings, Taskscaler

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

GROUP = FakeInstanceGroup()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((GROUP,), "groups must be a list of opened groups, not FakeInstanceGroup; write [group]"),
        (("local",), "groups must be a list of opened groups, not str"),
        (
            ([Registry().provider("local")],),
            (
                "groups[0] must be an opened group, not the provider 'local'; open it with "
                "`async with provider.open(config, GroupSettings()) as group:`"
            ),
        ),
        (([GROUP, "x"],), "groups[1] must be an opened group, not str"),
        (([GROUP], {"max_instances": 3}), "settings must be a Settings, not dict"),
        (([GROUP], Settings), "settings must be a Settings, not the class Settings"),
    ],
)
def test_wrong_argument_is_named(arguments: tuple[Any, ...], expected: str) -> None:
    """The message has the argument, the type that it must have, and the one that it has."""
    with pytest.raises(TypeError) as caught:
        Taskscaler(*arguments)
    assert expected in str(caught.value)


def test_group_that_was_not_entered_is_named() -> None:
    """A forgotten `async with` around `Provider.open` is told as such."""
    provider = Registry().provider("local")
    manager: Any = provider.open(provider.config_type(), GroupSettings())
    with pytest.raises(TypeError, match="not a context manager that was not entered; open it"):
        Taskscaler([manager])


@pytest.mark.parametrize("method", ["acquire", "resume", "drain"])
async def test_number_is_not_a_timeout(method: str) -> None:
    """A number of seconds is refused, with the timedelta that is meant."""
    words = () if method == "drain" else ("key",)
    async with Taskscaler([GROUP], connect=GROUP.connect) as scaler:
        ask: Any = getattr(scaler, method)
        with pytest.raises(TypeError, match=r"not int; write timedelta\(seconds=5\)"):
            await ask(*words, timeout=5)


async def test_key_must_be_a_text() -> None:
    """A number as the key of a task is refused before anything is asked."""
    number: Any = 7
    async with Taskscaler([GROUP], connect=GROUP.connect) as scaler:
        for ask in (scaler.acquire, scaler.resume, scaler.reserve):
            with pytest.raises(TypeError, match="key must be a str, not int"):
                ask(number)


def test_scaler_that_was_not_entered_says_so() -> None:
    """A forgotten `async with` around the scaler is told with the line to write."""
    with pytest.raises(ScalerClosed, match=r"inside `async with Taskscaler\(...\) as scaler:`"):
        Taskscaler([GROUP]).acquire("key")


def test_same_group_twice_is_refused() -> None:
    """The message names the group."""
    with pytest.raises(IllegalEvent, match=GROUP.info.id):
        Taskscaler([GROUP, GROUP])


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        (Settings, "max_instances", "3", "must be a value of type int, not str"),
        (Settings, "max_instances", True, "must be a value of type int, not bool"),
        (Settings, "backoff", 3, "must be a value of type timedelta, not int"),
        (Settings, "policy", None, "must be a value of type Policy, not NoneType"),
        (Settings, "placement", "pack", "must be a value of type Placement, not str"),
        (Settings, "schedule", [], "must be a value of type tuple, not list"),
        (Policy, "idle_time", "5m", "must be a value of type timedelta, not str"),
        (Policy, "scale_factor", "1", "must be a value of type int or float, not str"),
        (Policy, "preemptive_mode", 1, "must be a value of type bool, not int"),
    ],
)
def test_setting_of_a_wrong_type_is_named(
    kind: type[Any], name: str, value: object, expected: str
) -> None:
    """Python would accept the value, and fail at a decision much later."""
    with pytest.raises(TypeError) as caught:
        kind(**{name: value})
    assert str(caught.value) == f"{name} {expected}"


async def test_group_belongs_to_one_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second scaler on a group is refused by the lock that commands use, too."""
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path))
    group = FakeInstanceGroup()
    group.info = replace(group.info, private=False)
    async with Taskscaler([group], connect=group.connect, purpose="the first one"):
        with pytest.raises(GroupHeld, match="the first one"):
            async with Taskscaler([group], connect=group.connect):
                pass
    async with Taskscaler([group], connect=group.connect):
        pass


async def test_connections_need_asyncio() -> None:
    """On trio, the scaler is refused before it buys an instance that it could not reach."""
    if sniffio.current_async_library() == "asyncio":
        async with Taskscaler([GROUP]):
            pass
        return
    with pytest.raises(ConfigError, match=r'use anyio.run\(..., backend="asyncio"\)'):
        async with Taskscaler([GROUP]):
            pass
