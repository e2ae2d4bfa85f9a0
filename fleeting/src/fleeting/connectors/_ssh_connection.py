"""One SSH connection to one instance, and everything that runs over it.

Opening a channel can be cancelled, and must not leave the channel open on the
server. asyncssh loses track of such a channel. So each opening is a task of its own
that is never cancelled. If the caller is gone when the task ends, the opened channel
is closed at once. The task ends with the connection at the latest.

A server limits how many commands run over one connection (`MaxSessions`, ten in
OpenSSH). A command that is refused while others run waits for one of them to end. The copies
of files have a session, too, which is given up if a command needs it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import asyncssh
from asyncssh.constants import OPEN_REQUEST_PTY_FAILED, OPEN_REQUEST_SESSION_FAILED
from typing_extensions import override

from fleeting.abc import Connection, CopyBudget
from fleeting.connectors._ssh_bootstrap import Launch, prepare
from fleeting.connectors._ssh_channels import ChannelStream, StreamChannel
from fleeting.connectors._ssh_command_channel import CommandChannel
from fleeting.connectors._ssh_errors import FOREIGN, cause, no_sftp, translate
from fleeting.connectors._ssh_files import SSHFiles
from fleeting.connectors._ssh_process import SSHProcess, SSHTerminal
from fleeting.connectors._ssh_signals import SIGNAL_SHELL, Signaller, delivers_signals
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
    from pathlib import Path

    from anyio.abc import ByteStream

    from fleeting.abc import Terminal
    from fleeting.connectors._ssh_peer import SSHPeer

T = TypeVar("T")
C = TypeVar("C")
P = TypeVar("P", bound=SSHProcess)

# The receive window of each channel.
WINDOW_BYTES = 2 * 1024 * 1024
# How long an orderly shutdown of the connection may take.
CLOSE_SECONDS = 2.0
# How long it may take to end a command when its block is left.
END_SECONDS = 5.0
# How long, and how often, to wait for the server to notice that a session has ended.
LINGER_SECONDS = 0.05
LINGER_TRIES = 100
# Refusals that do not depend on other sessions, so that waiting does not help.
PERMANENT_REFUSALS = (OPEN_REQUEST_PTY_FAILED, OPEN_REQUEST_SESSION_FAILED)

_log = logging.getLogger(__name__)


class SSHConnection(Connection):
    """An established connection, logged in."""

    def __init__(self, connection: asyncssh.SSHClientConnection, peer: SSHPeer) -> None:
        self._connection = connection
        self._peer = peer
        self._closing = False
        self._openings: set[asyncio.Future[Any]] = set()
        self._processes: set[SSHProcess] = set()
        self._session_ended = anyio.Event()
        self._refused = False
        self._permitted = False
        self._files: SSHFiles | None = None
        self._files_lock = anyio.Lock()
        self._copies = 0
        self._delivers_signals = delivers_signals(
            str(connection.get_extra_info("server_version")),
            str(connection.get_extra_info("username")),
        )
        self._signaller: Signaller | None = None
        self._signaller_lock = anyio.Lock()
        self._only_session = False

    @property
    def raw(self) -> asyncssh.SSHClientConnection:
        """Return the connection of asyncssh, as the way to another host."""
        return self._connection

    @property
    @override
    def is_open(self) -> bool:
        return self._peer.loss is None

    @override
    @asynccontextmanager
    async def start(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AsyncGenerator[SSHProcess]:
        self._peer.raise_if_lost()
        launch, channel = await self._launch(partial(prepare, command, env, cwd))
        async with self._running(SSHProcess(channel)) as process:
            if launch.header:
                await process.send_header(launch.header)
            yield process

    @asynccontextmanager
    async def start_unprepared(self, command: str) -> AsyncGenerator[SSHProcess]:
        """Start a command that ends by itself: it may not receive signals."""
        channel = await self._open_command(Launch(command))
        async with self._running(SSHProcess(channel)) as process:
            yield process

    @override
    @asynccontextmanager
    async def open_shell(self, *, kind: str, columns: int, rows: int) -> AsyncGenerator[Terminal]:
        self._peer.raise_if_lost()
        options = {"term_type": kind or "dumb", "term_size": (columns, rows)}
        channel = await self._open_command(Launch(None), terminal=options)
        async with self._running(SSHTerminal(channel)) as shell:
            yield shell

    @asynccontextmanager
    async def _running(self, process: P) -> AsyncGenerator[P]:
        """End a process on leaving, and wake those who wait for a session."""
        self._processes.add(process)
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + END_SECONDS):
                await process.end()
            self._processes.discard(process)
            self._announce()

    @override
    async def put(self, source: Path, destination: str) -> None:
        async with self._open_files() as files:
            await files.put(source, destination)

    @override
    async def get(
        self,
        source: str,
        destination: Path,
        *,
        follow: bool = True,
        budget: CopyBudget | None = None,
    ) -> None:
        async with self._open_files() as files:
            await files.get(source, destination, budget or CopyBudget(), follow=follow)

    @override
    async def glob(self, pattern: str, *, budget: CopyBudget | None = None) -> list[str]:
        async with self._open_files() as files:
            return await files.glob(pattern, budget or CopyBudget())

    @override
    async def open_tcp(self, host: str, port: int) -> ByteStream:
        return await self._open_stream(
            lambda channel: self._connection.create_connection(
                lambda: channel, host, port, encoding=None, window=WINDOW_BYTES
            ),
            f"did not open a stream to {host}:{port}",
        )

    @override
    async def open_unix(self, path: str) -> ByteStream:
        return await self._open_stream(
            lambda channel: self._connection.create_unix_connection(
                lambda: channel, path, encoding=None, window=WINDOW_BYTES
            ),
            f"did not open a stream to the socket {path}",
        )

    @override
    async def aclose(self) -> None:
        if self._closing:
            return
        self._closing = True
        try:
            async with anyio.create_task_group() as ending:
                for process in list(self._processes):
                    ending.start_soon(process.end)
            if self._peer.loss is None:
                self._peer.loss = "it was closed on this side"
            self._connection.close()
            with anyio.move_on_after(CLOSE_SECONDS):
                await self._connection.wait_closed()
            if self._peer.way is not None:
                await self._peer.way.aclose()
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection at once, without notifying the other side; idempotent."""
        self._closing = True
        if self._peer.loss is None:
            self._peer.loss = "it was closed on this side"
        self._connection.abort()
        if self._peer.way is not None:
            self._peer.way.abort()

    async def _launch(self, prepared: Callable[..., Launch]) -> tuple[Launch, CommandChannel]:
        """Start a command, with a way to send signals to it."""
        if not self._delivers_signals and not self._only_session:
            launch = prepared(announced=True)
            try:
                return launch, await self._open_command(launch, await self._open_signaller())
            except NotSupported:
                if self._processes or self._signaller is None:
                    raise
            # Perhaps the shell that sends the signals has the only session.
            signaller, self._signaller = self._signaller, None
            signaller.end()
            launch = prepared(announced=False)
            channel = await self._open_command(launch)
            self._only_session = True
            _log.warning(
                "%s permits only one command over a connection, so root's commands cannot be ended "
                "by a signal; raise MaxSessions in its sshd_config",
                self._peer.where,
            )
            return launch, channel
        launch = prepared(announced=False)
        return launch, await self._open_command(launch)

    async def _open_command(
        self,
        launch: Launch,
        signaller: Signaller | None = None,
        terminal: Mapping[str, Any] | None = None,
    ) -> CommandChannel:
        def opening() -> Coroutine[Any, Any, CommandChannel]:
            channel = CommandChannel(
                self._peer, self._announce, signaller=signaller, token=launch.token
            )
            # asyncssh does not annotate this parameter.
            create = cast(
                "Callable[..., Awaitable[object]]",
                self._connection.create_session,  # pyright: ignore[reportUnknownMemberType] - as above
            )
            return _opened(
                create(
                    lambda: channel,
                    launch.line,
                    encoding=None,
                    window=WINDOW_BYTES,
                    **(terminal or {}),
                ),
                channel,
            )

        failure = "refused to run a command" if terminal is None else "refused to open a terminal"
        return await self._open_session(opening, CommandChannel.kill, failure)

    async def _open_session(
        self,
        opening: Callable[[], Coroutine[Any, Any, T]],
        discard: Callable[[T], object],
        failure: str,
    ) -> T:
        """Open a channel that counts as a session; if there are too many, wait for one to end."""
        tries = LINGER_TRIES
        while True:
            ended = self._session_ended
            try:
                session = await self._open(opening(), discard)
            except asyncssh.ChannelOpenError as error:
                self._peer.raise_if_lost()
                if await self._end_idle_files():
                    continue
                others = bool(self._processes or self._openings or self._copies or ended.is_set())
                # If the server permits sessions and none of ours is open, it has not noticed
                # yet that our last ones ended.
                tries -= not others
                lingering = self._permitted and tries > 0
                if error.code in PERMANENT_REFUSALS or not (others or lingering):
                    self._announce()  # Others that wait for this opening try for themselves.
                    raise NotSupported(f"{self._peer.where} {failure}: {cause(error)}") from error
            except FOREIGN as error:
                self._peer.raise_if_lost()
                raise translate(error, f"{self._peer.where} {failure}") from error
            else:
                self._permitted = True
                return session
            self._note_refusal()
            with anyio.move_on_after(None if others else LINGER_SECONDS):
                await ended.wait()
            self._peer.raise_if_lost()

    async def _open_stream(
        self, opening: Callable[[StreamChannel], Coroutine[Any, Any, object]], failure: str
    ) -> ByteStream:
        channel = StreamChannel(self._peer)
        try:
            await self._open(_opened(opening(channel), channel), StreamChannel.abort)
        except FOREIGN as error:
            self._peer.raise_if_lost()
            raise translate(error, f"{self._peer.where} {failure}") from error
        return ChannelStream(channel)

    async def _open(self, opening: Coroutine[Any, Any, T], discard: Callable[[T], object]) -> T:
        """Await an opening; if cancelled meanwhile, close the channel once it is open."""
        # asyncssh leaks a channel whose opening is cancelled, so this task never is.
        task = asyncio.ensure_future(opening)
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: _discard(done, discard))
            raise

    async def _open_signaller(self) -> Signaller:
        async with self._signaller_lock:
            if self._signaller is None or not self._signaller.usable:
                self._signaller = Signaller(await self._open_command(Launch(SIGNAL_SHELL)))
            return self._signaller

    @asynccontextmanager
    async def _open_files(self) -> AsyncGenerator[SSHFiles]:
        """Use the SFTP client, which stays open until its session is needed for a command."""

        async def opening() -> asyncssh.SFTPClient:
            try:
                return await self._connection.start_sftp_client(path_errors="surrogateescape")
            except (asyncssh.SFTPBadMessage, asyncssh.SFTPConnectionLost) as error:
                self._peer.raise_if_lost()
                raise no_sftp(self._peer.where, error) from error

        async with self._files_lock:
            files = self._files
            if files is not None and not self._copies:
                self._files = None  # A command that needs a session must not close it now.
                try:
                    await files.answers()
                finally:
                    self._files = files
            if files is None or not files.usable:
                client = await self._open_session(
                    opening, asyncssh.SFTPClient.exit, "refused to transfer files"
                )
                files = self._files = SSHFiles(client, self._peer)
            self._copies += 1
        try:
            yield files
        finally:
            self._copies -= 1
            if not self._copies:
                self._announce()  # Its session is free now.

    async def _end_idle_files(self) -> bool:
        """Close the SFTP client if no copy uses it; return whether its session is free now."""
        files = self._files
        if files is None or self._copies:
            return False
        self._files = None
        with anyio.move_on_after(CLOSE_SECONDS):
            await files.aclose()
        return True

    def _announce(self) -> None:
        """Wake those who wait for a session to end."""
        self._session_ended.set()
        self._session_ended = anyio.Event()

    def _note_refusal(self) -> None:
        if not self._refused:
            self._refused = True
            _log.warning(
                "%s limits the number of commands that run over one connection, so some wait for "
                "others to end; raise MaxSessions in its sshd_config",
                self._peer.where,
            )


async def _opened(opening: Awaitable[object], channel: C) -> C:
    await opening
    return channel


def _discard(done: asyncio.Future[T], discard: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        discard(done.result())
