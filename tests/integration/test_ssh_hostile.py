"""Instances that try to do harm to the computer that connects to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fleeting.abc import CopyBudget
from fleeting.connectors.ssh import SSHConnector
from fleeting.errors import TransferFailed
from hostile_ssh import EndlessDepth, EndlessFile, EndlessListing, EvilErrors, HeldFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import asyncssh

pytestmark = pytest.mark.anyio


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return the folder of the instance, that of the downloads, and one outside of it."""
    folders = (tmp_path / "there", tmp_path / "downloads", tmp_path / "outside")
    for folder in folders:
        folder.mkdir()
    (folders[0] / "tree").mkdir()
    (folders[0] / "tree" / "file").write_text("harm")
    return folders


async def test_a_link_that_arrives_during_a_copy_is_not_followed(
    serve: Callable[..., Any], folders: tuple[Path, Path, Path]
) -> None:
    """A link on the way, made by another copy while the server delays this one, is an error."""
    there, downloads, outside = folders
    held = HeldFiles("stat")
    async with (
        serve(sftp_factory=held) as server,
        await SSHConnector().connect(server.info) as connection,
        anyio.create_task_group() as group,
    ):

        async def copy() -> None:
            with pytest.raises(TransferFailed, match="'tree' is a symbolic link"):
                await connection.get(
                    f"{there}/tree/file", downloads / "tree" / "file", follow=False
                )

        group.start_soon(copy)
        await held.asked.wait()
        (downloads / "tree").symlink_to(outside)
        held.released.set()
    assert list(outside.iterdir()) == []


async def test_texts_of_the_server_are_escaped_and_bounded(
    serve: Callable[..., Any], folders: tuple[Path, Path, Path]
) -> None:
    """An error of SFTP is one short and printable line."""
    there, downloads, _ = folders
    async with (
        serve(sftp_factory=EvilErrors) as server,
        await SSHConnector().connect(server.info) as connection,
    ):
        with pytest.raises(TransferFailed, match=r"x1b\[2J.* error: forged") as raised:
            await connection.get(str(there), downloads / "new")
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("hostile", "why"),
    [(EndlessListing, "more than 5000 files"), (EndlessDepth, "paths that are too long")],
)
async def test_listings_without_end_are_given_up(
    serve: Callable[..., Any], folders: tuple[Path, Path, Path], hostile: Any, why: str
) -> None:
    """Neither a pattern nor a copy follows a directory without end."""
    there, downloads, _ = folders
    async with (
        serve(sftp_factory=hostile) as server,
        await SSHConnector().connect(server.info) as connection,
    ):
        for pattern in ("**", "*", "**/x"):
            if (hostile, pattern) != (EndlessDepth, "*"):
                with pytest.raises(TransferFailed, match=why):
                    await connection.glob(f"{there}/{pattern}", budget=CopyBudget(files=5000))
        with pytest.raises(TransferFailed, match=why):
            await connection.get(str(there), downloads / "new", budget=CopyBudget(files=5000))


@pytest.mark.parametrize("one_file", [True, False])
async def test_files_without_end_are_given_up(
    serve: Callable[..., Any],
    folders: tuple[Path, Path, Path],
    one_file: bool,  # noqa: FBT001 -- pytest passes it by name
) -> None:
    """A copy ends at the limit of a file or of all files, and leaves no part of the file."""
    there, downloads, _ = folders
    limit = {"file_bytes" if one_file else "total_bytes": 3_000_000}
    async with (
        serve(sftp_factory=EndlessFile) as server,
        await SSHConnector().connect(server.info) as connection,
    ):
        with pytest.raises(TransferFailed, match=r"tree/file: .* larger than 3000000 bytes"):
            await connection.get(
                f"{there}/tree/file", downloads / "file", budget=CopyBudget(**limit)
            )
    assert list(downloads.iterdir()) == []


async def test_the_name_of_a_signal_is_escaped(serve: Callable[..., Any]) -> None:
    """The server chooses the name of the signal that ended a command."""

    async def end(process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        if "ready-" in command:  # The proof that a connection runs commands.
            process.stdout.write(command.split()[-1].encode() + b"\n")
            process.exit(0)
        else:
            process.exit_with_signal("\x1b[2J" + "X" * 1000)

    async with serve(end) as server, await SSHConnector().connect(server.info) as connection:
        signal = (await connection.run("true")).signal
        assert signal is not None
        assert signal.isprintable()
        assert len(signal) < 50


@pytest.mark.parametrize("follow", [True, False])
async def test_a_folder_that_becomes_a_link_is_not_written_through(
    serve: Callable[..., Any],
    folders: tuple[Path, Path, Path],
    follow: bool,  # noqa: FBT001 -- pytest passes it by name
) -> None:
    """A folder of a tree is replaced by a link after it was made: nothing arrives outside."""
    there, downloads, outside = folders
    held = HeldFiles("open")
    async with (
        serve(sftp_factory=held) as server,
        await SSHConnector().connect(server.info) as connection,
        anyio.create_task_group() as group,
    ):

        async def copy() -> None:
            with pytest.raises(TransferFailed, match="'tree' is a symbolic link"):
                await connection.get(str(there), downloads / "new", follow=follow)

        group.start_soon(copy)
        await held.asked.wait()
        (downloads / "new" / "tree").rename(downloads / "moved")
        (downloads / "new" / "tree").symlink_to(outside)
        held.released.set()
    assert list(outside.iterdir()) == []


async def test_an_interrupted_copy_leaves_the_old_file(
    serve: Callable[..., Any], folders: tuple[Path, Path, Path]
) -> None:
    """A file gets its name when it is complete; what was there before stays until then."""
    there, downloads, _ = folders
    (downloads / "file").write_text("old")
    held = HeldFiles("read")
    async with (
        serve(sftp_factory=held) as server,
        await SSHConnector().connect(server.info) as connection,
        anyio.create_task_group() as group,
    ):
        group.start_soon(connection.get, f"{there}/tree/file", downloads / "file")
        await held.asked.wait()
        group.cancel_scope.cancel()
        held.released.set()
    assert [path.name for path in downloads.iterdir()] == ["file"]
    assert (downloads / "file").read_text() == "old"
