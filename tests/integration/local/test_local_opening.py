"""Opening and closing a group: on any event loop, and when cancelled."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import anyio
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.local.conftest import Local

pytestmark = pytest.mark.anyio

# Each step of opening (starting the server, its imports, the first request) takes a different time.
CANCELLED_AFTER_MILLISECONDS = (0, 5, 20, 60, 120, 200)
BACKENDS = ("asyncio", "trio")
# The other combinations are a long proof.
ORDINARY = {(0, "asyncio", False), (20, "trio", True), (60, "asyncio", True), (120, "trio", False)}
CANCELLATIONS = [
    pytest.param(*case, marks=() if case in ORDINARY else pytest.mark.long)
    for case in itertools.product(CANCELLED_AFTER_MILLISECONDS, BACKENDS, (True, False))
]


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_the_manager_can_run_on_any_event_loop(local: Local, tmp_path: Path) -> None:
    """Only the server needs asyncio."""
    async with local.open(root=tmp_path) as group:
        ids = await local.grow(group, 2)
        await group.decrease(ids)
        for id in ids:
            await local.reach(group, id, None)
    assert local.processes(tmp_path) == []


@pytest.mark.parametrize(("milliseconds", "anyio_backend", "persistent"), CANCELLATIONS)
async def test_cancelling_while_opening_leaves_nothing(
    local: Local, tmp_path: Path, *, milliseconds: int, persistent: bool
) -> None:
    """Whenever opening is cancelled, no process is left and the root can be opened again."""
    with anyio.move_on_after(milliseconds / 1000):
        async with local.open(root=tmp_path, persistent=persistent):
            await anyio.sleep_forever()
    if not persistent:
        assert local.processes(tmp_path) == []
    async with local.open(root=tmp_path, persistent=persistent) as group:
        assert await local.states(group) == {}
    await local.wait(lambda: not local.processes(tmp_path))


async def test_cancelling_leaves_no_process_and_no_directory(local: Local, tmp_path: Path) -> None:
    """A cancelled block cleans up before it ends."""
    with anyio.CancelScope() as scope:
        async with local.open(root=tmp_path) as group:
            await local.grow(group, 2)
            scope.cancel()
            await anyio.sleep_forever()
    assert local.processes(tmp_path) == []
    assert not (tmp_path / "instances").exists()
