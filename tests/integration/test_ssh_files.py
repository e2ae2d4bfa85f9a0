"""Files, directories and streams over SSH, with both kinds of server."""

# ruff: noqa: ARG002 - methods that asyncssh calls have its arguments and meaning
# ruff: noqa: ASYNC240 - the files of these tests are few and local
# ruff: noqa: S610 - anyio's `extra` is not Django's
from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
import pytest

from fleeting.connectors.ssh import SSHConnector
from fleeting.errors import NotSupported, TransferFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anyio.abc import SocketStream

    from fleeting.abc import Connection

pytestmark = pytest.mark.anyio


def _tree(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Return everything below a directory: permission bits, and content or link target."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode & 0o777
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = (0, str(path.readlink()))
        else:
            found[name] = (mode, path.read_bytes() if path.is_file() else None)
    return found


def _make_tree(root: Path) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o755)
    (root / "secret").write_text("secret")
    (root / "secret").chmod(0o600)
    (root / "deep" / "er" / "bytes").write_bytes(bytes(range(256)) * 20)
    (root / "deep" / "locked").mkdir()
    (root / "deep" / "locked" / "file").write_text("x")
    (root / "deep" / "locked").chmod(0o555)
    (root / "link").symlink_to("deep/er/bytes")
    (root / "dangling").symlink_to("/nowhere")
    (root / "folder-link").symlink_to("deep")
    (root / "strange 'name'\n*").write_text("strange")
    (root / os.fsdecode(b"\xff\xfe")).write_text("no text")


async def test_trees_both_ways(connection: Connection, tmp_path: Path) -> None:
    """A tree is copied with its bits, links, empty directories and special names, both ways."""
    _make_tree(tmp_path / "here")
    await connection.put(tmp_path / "here", f"{tmp_path}/made/on/the/way/there")
    there = tmp_path / "made/on/the/way/there"
    assert _tree(there) == _tree(tmp_path / "here")
    await connection.get(str(there), tmp_path / "also/made/back")
    assert _tree(tmp_path / "also/made/back") == _tree(tmp_path / "here")


async def test_copies_are_repeatable(connection: Connection, tmp_path: Path) -> None:
    """An existing file is replaced, also a read-only one; an existing directory is merged into."""
    _make_tree(tmp_path / "here")
    (tmp_path / "here" / "script").chmod(0o444)
    for _ in range(2):
        await connection.put(tmp_path / "here", f"{tmp_path}/there")
        await connection.get(f"{tmp_path}/there", tmp_path / "back")
        (tmp_path / "there" / "more").write_text("kept")
    assert (tmp_path / "there" / "more").read_text() == "kept"
    (tmp_path / "there" / "more").unlink()
    (tmp_path / "back" / "more").unlink()
    assert _tree(tmp_path / "back") == _tree(tmp_path / "there") == _tree(tmp_path / "here")


async def test_large_files(connection: Connection, tmp_path: Path) -> None:
    """Large files are copied unchanged, several at the same time over one connection."""
    data = os.urandom(3 * 1024 * 1024 + 1)
    (tmp_path / "large").write_bytes(data)

    async def there_and_back(number: int) -> None:
        await connection.put(tmp_path / "large", f"{tmp_path}/up/{number}")
        await connection.get(f"{tmp_path}/up/{number}", tmp_path / "down" / str(number))

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(there_and_back, number)
    assert all((tmp_path / "down" / str(number)).read_bytes() == data for number in range(3))


async def test_a_link_in_the_way_is_not_written_through(
    connection: Connection, tmp_path: Path
) -> None:
    """A link at the destination is replaced and never written through."""
    (tmp_path / "there" / "folder").mkdir(parents=True)
    (tmp_path / "there" / "file").write_text("new")
    (tmp_path / "there" / "folder" / "inner").write_text("new")
    outside, back = tmp_path / "outside", tmp_path / "back"
    outside.mkdir()
    back.mkdir()
    (outside / "file").write_text("old")
    (back / "file").symlink_to(outside / "file")
    (back / "folder").symlink_to(outside)
    await connection.get(f"{tmp_path}/there", back)
    assert (outside / "file").read_text() == "old"
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (back / "folder" / "inner").read_text() == "new"


async def test_missing_files_are_named(connection: Connection, tmp_path: Path) -> None:
    """A missing file is named, and the message says on which side it is missing."""
    with pytest.raises(TransferFailed, match=r"local path .*/missing: no such file"):
        await connection.put(tmp_path / "missing", "x")
    with pytest.raises(TransferFailed, match=r"/missing on instance i-.*: no such file"):
        await connection.get(f"{tmp_path}/missing", tmp_path / "x")


async def test_a_directory_is_not_replaced_by_a_file(
    connection: Connection, tmp_path: Path
) -> None:
    """A file does not replace a directory, and the message says why."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TransferFailed, match=r"folder on instance.*: it is a directory"):
        await connection.put(tmp_path / "file", f"{tmp_path}/folder")
    with pytest.raises(TransferFailed, match=r"local path .*folder: it is a directory"):
        await connection.get(f"{tmp_path}/file", tmp_path / "folder")


async def test_special_files_are_refused(connection: Connection, tmp_path: Path) -> None:
    """A pipe in a tree is an error that names it, and does not block the copy."""
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree" / "pipe")
    with pytest.raises(TransferFailed, match="pipe is not a regular file"):
        await connection.put(tmp_path / "tree", f"{tmp_path}/there")
    with pytest.raises(TransferFailed, match="pipe is not a regular file"):
        await connection.get(f"{tmp_path}/tree", tmp_path / "back")


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ("echo hello", "start-up file .* prints text"),
        ("echo", "start-up file .* prints text"),
        ("exit 0", "SFTP server ended at once"),
    ],
)
async def test_a_start_up_file_that_disturbs_sftp_is_named(
    start_sshd: Callable[..., Any], start: str, why: str
) -> None:
    """Text before the transfer, or a shell that ends, is reported as what it is."""
    server = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec:/usr/lib/ssh")
    info = start_sshd(f"Subsystem sftp {start}; exec {server or 'sftp-server'}")
    async with await SSHConnector().connect(info) as connection:
        with pytest.raises(NotSupported, match=why):
            await connection.glob("*")
        assert (await connection.run("echo still usable")).stdout == b"still usable\n"


async def test_copies_and_commands_share_one_session(
    start_sshd: Callable[..., Any], tmp_path: Path
) -> None:
    """If a server permits one session only, files and commands take turns, also concurrently."""
    (tmp_path / "file").write_text("x")
    async with await SSHConnector().connect(start_sshd("MaxSessions 1")) as connection:

        async def turn(number: int) -> None:
            await connection.put(tmp_path / "file", f"{tmp_path}/there/{number}")
            printed = await connection.run(f"cat {tmp_path}/there/{number}")
            assert printed.stdout == b"x"
            await connection.get(f"{tmp_path}/there/{number}", tmp_path / "back" / str(number))

        await turn(0)
        async with anyio.create_task_group() as group:
            for number in range(1, 4):
                group.start_soon(turn, number)
    assert len(list((tmp_path / "back").iterdir())) == 4


class FullDisk(asyncssh.SFTPServer):
    """A server whose disk is full."""

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def statvfs(self, path: bytes) -> asyncssh.SFTPVFSAttrs:
        return asyncssh.SFTPVFSAttrs(bsize=1, frsize=1, blocks=9, bavail=0)


class NoAccess(asyncssh.SFTPServer):
    """A server that denies all access."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        raise asyncssh.SFTPPermissionDenied("no")

    def remove(self, path: bytes) -> None:
        raise asyncssh.SFTPPermissionDenied("no")

    def scandir(self, path: bytes) -> Any:
        raise asyncssh.SFTPPermissionDenied("no")


@pytest.mark.parametrize(
    ("factory", "cause"), [(FullDisk, "the disk is full"), (NoAccess, "permission denied")]
)
async def test_causes_are_named(
    serve: Callable[..., Any], tmp_path: Path, factory: Any, cause: str
) -> None:
    """A full disk and a lack of permission are reported as such, with the path."""
    (tmp_path / "file").write_text("x")
    async with (
        serve(sftp_factory=factory) as server,
        await SSHConnector().connect(server.info) as connection,
    ):
        with pytest.raises(TransferFailed, match=f"there on instance i-1 .*: {cause}"):
            await connection.put(tmp_path / "file", f"{tmp_path}/there")


async def test_unreadable_directories_are_not_empty(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    """For `glob`, a directory that cannot be read is an error, not an empty result."""
    async with (
        serve(sftp_factory=NoAccess) as server,
        await SSHConnector().connect(server.info) as connection,
    ):
        with pytest.raises(TransferFailed, match="permission denied"):
            await connection.glob(f"{tmp_path}/*")


class Liar(asyncssh.SFTPServer):
    """A server that lists names that are impossible in a directory."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        yield asyncssh.SFTPName(
            b"../../escaped", attrs=asyncssh.SFTPAttrs(type=1, permissions=0o644)
        )


async def test_a_lying_server_does_not_escape(serve: Callable[..., Any], tmp_path: Path) -> None:
    """A name with a slash in a listing cannot lead a copy out of its destination."""
    (tmp_path / "tree").mkdir()
    async with (
        serve(sftp_factory=Liar) as server,
        await SSHConnector().connect(server.info) as connection,
    ):
        with pytest.raises(TransferFailed, match="names that are impossible in a directory"):
            await connection.get(f"{tmp_path}/tree", tmp_path / "a" / "b" / "c")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*", ["a", "b.txt", "deep"]),
        ("*.txt", ["b.txt"]),
        ("**/*.txt", ["b.txt", "deep/c.txt", "deep/er/d.txt"]),
        ("**", ["a", "b.txt", "deep", "deep/c.txt", "deep/er", "deep/er/d.txt"]),
        ("deep/*/d.txt", ["deep/er/d.txt"]),
        ("deep/[bc].tx?", ["deep/c.txt"]),
        (".*", [".hidden"]),
        ("a", ["a"]),
        ("a/*", []),
        ("missing", []),
        ("missing/*", []),
    ],
)
async def test_glob(
    connection: Connection, tmp_path: Path, pattern: str, matches: list[str]
) -> None:
    """Patterns match as in a shell; no match is an empty list."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a", "b.txt", ".hidden", "deep/c.txt", "deep/er/d.txt"):
        (tmp_path / name).touch()
    found = await connection.glob(f"{tmp_path}/{pattern}")
    assert found == [f"{tmp_path}/{name}" for name in matches]


async def test_relative_paths_are_relative_to_the_home(
    start_sshd: Callable[..., Any], tmp_path: Path
) -> None:
    """Relative paths start at the user's home, and relative patterns have relative results."""
    (tmp_path / "file").write_text("x")
    name = f"fleeting-test-{os.getpid()}"
    async with await SSHConnector().connect(start_sshd()) as connection:
        try:
            await connection.put(tmp_path / "file", f"{name}/one")
            assert await connection.glob(f"{name}/*") == [f"{name}/one"]
            assert (await connection.run("cat one", cwd=name)).stdout == b"x"
        finally:
            await connection.run(f"rm -r {name}")


async def _shout(stream: SocketStream) -> None:
    """Answer in capitals, once the other side has finished."""
    async with stream:
        data = b"".join([chunk async for chunk in stream])
        await stream.send(data.upper())


async def test_tcp_streams(connection: Connection) -> None:
    """A TCP stream carries bytes both ways, and each direction ends separately."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _shout)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await connection.open_tcp("127.0.0.1", port) as stream:
            await stream.send(b"abc" * 100_000)
            await stream.send_eof()
            data = b"".join([chunk async for chunk in stream])
        assert data == b"ABC" * 100_000
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        group.cancel_scope.cancel()


async def test_unix_streams(connection: Connection, tmp_path: Path) -> None:
    """A stream to a Unix socket of the instance carries bytes both ways."""
    path = str(tmp_path / "socket")
    listener = await anyio.create_unix_listener(path)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, _shout)
        async with await connection.open_unix(path) as stream:
            await stream.send(b"hello")
            await stream.send_eof()
            assert b"".join([chunk async for chunk in stream]) == b"HELLO"
        group.cancel_scope.cancel()


async def test_streams_to_closed_ports(connection: Connection, tmp_path: Path) -> None:
    """If nothing listens, opening a stream fails, and the connection stays usable."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=f"did not open a stream to 127.0.0.1:{port}"):
        await connection.open_tcp("127.0.0.1", port)
    with pytest.raises(Unreachable, match="did not open a stream to the socket"):
        await connection.open_unix(str(tmp_path / "socket"))
    assert connection.is_open


async def test_a_pipe_in_the_place_of_a_file_does_not_block(
    connection: Connection, tmp_path: Path
) -> None:
    """A copy to it and from it fails at once, and cancellation is never in question."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    given = tmp_path / "given"
    given.write_text("x\n")
    with anyio.fail_after(20), pytest.raises(TransferFailed, match="not a regular file"):
        await connection.get(str(given), pipe)
    with anyio.fail_after(20), pytest.raises(TransferFailed, match="not a regular file"):
        await connection.put(pipe, str(tmp_path / "copy"))
