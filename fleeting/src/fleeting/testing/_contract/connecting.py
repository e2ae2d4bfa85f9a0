"""Tests of reaching an instance."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, running
from fleeting.testing._contract.promises import Promise, shows

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("ConnectTests",)

# On the instance; the name of the file is random.
TEMPORARY = "/tmp/"  # noqa: S108 -- as above
# How long the removal of a file from an instance may take.
REMOVAL_SECONDS = 10.0


class ConnectTests(ContractBase):
    """Reaching an instance."""

    @shows(Promise.IDENTITY, adds=1)
    async def test_connect_info_is_about_the_instance(self, open_group: OpenGroup) -> None:
        """`connect_info` returns the details of the requested instance, each time."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            for _ in range(2):
                info = await examination.call(examination.group.connect_info, id)
                expect(info.id == id, f"connect_info({id!r}) returned the details of {info.id!r}")
                expect(info.protocol, f"connect_info({id!r}) names no protocol")

    @shows(Promise.CONNECTING, adds=1)
    async def test_command_runs_on_the_instance(self, open_group: OpenGroup) -> None:
        """A command runs on the instance, which keeps running."""
        if not self.can_connect:
            pytest.skip("can_connect is False")
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            info = await examination.call(examination.group.connect_info, id)
            async with await self.connect(examination.group, info) as connection:
                completed = await connection.run(self.command)
            expect(completed.succeeded, f"{self.command!r} on the instance: {completed}")
            expect(
                id in running(await examination.listing()),
                f"{id} stopped running after a connection to it",
            )
            await examination.call(examination.group.heartbeat, id)

    @shows(Promise.CONNECTING, adds=1)
    async def test_files_are_copied(self, open_group: OpenGroup, tmp_path: Path) -> None:
        """A file that is copied to an instance and back is unchanged."""
        if not self.can_connect:
            pytest.skip("can_connect is False")
        name, content = f"contract-{uuid.uuid4().hex}", bytes(range(256)) * 300
        there, back = tmp_path / "there", tmp_path / "back"
        there.write_bytes(content)
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            info = await examination.call(examination.group.connect_info, id)
            # Windows has no such folder; there, the file is in the home directory.
            folder, remove = ("", "del") if info.os == "windows" else (TEMPORARY, "rm -f")
            async with await self.connect(examination.group, info) as connection:
                try:
                    await connection.put(there, f"{folder}{name}")
                    await connection.get(f"{folder}{name}", back)
                finally:
                    # An instance may be this computer, or one that is used again.
                    with anyio.move_on_after(REMOVAL_SECONDS, shield=True):
                        await connection.run(f"{remove} {folder}{name}")
        expect(back.read_bytes() == content, f"a file was changed by copying it to {id} and back")
