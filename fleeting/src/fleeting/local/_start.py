"""Starts the server process, finds a persistent one, and locks the root directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.to_thread

from fleeting._regular_files import open_regular, read_regular
from fleeting.errors import ConfigError, ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = ("find_server", "holding", "prepare_root", "start_detached", "start_server", "starting")

# How long a server that runs already may take to accept a connection.
CONNECT_SECONDS = 10.0
# How long the server may take to remove every instance. Then it is killed, which ends them too.
END_SECONDS = 15.0
# How often to check whether another manager has finished starting its server.
START_INTERVAL_SECONDS = 0.02
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "LC_")


def prepare_root(root: Path) -> Path:
    """Create the root directory if it is missing, private to this user.

    Raises:
        ConfigError: it cannot be created or written to.
    """
    root = root.expanduser().absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("manager.lock", "start.lock"):
            _open_lock(root, name).close()
    except OSError as error:
        raise ConfigError(
            f"plugin_config.root: {root} cannot be used ({error.strerror}); choose a directory "
            "that you can write to"
        ) from None
    return root.resolve()


@contextmanager
def holding(root: Path, *, shared: bool) -> Generator[None]:
    """Hold the manager's lock on a root, exclusively or shared with other managers.

    Raises:
        ConfigError: another manager holds it.
    """
    with _open_lock(root) as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"plugin_config.root: {root} is in use by another manager; stop that one, or "
                "choose another root"
            ) from None
        yield


@asynccontextmanager
async def starting(root: Path | None) -> AsyncGenerator[None]:
    """Hold the lock for starting a server, so that a root never has more than one."""
    if root is None:
        yield
        return
    with _open_lock(root, "start.lock") as lock:
        while not _is_locked_now(lock):  # noqa: ASYNC110 - another process, which sends no event
            await anyio.sleep(START_INTERVAL_SECONDS)
        yield


@asynccontextmanager
async def start_server(
    root: Path | None,
) -> AsyncGenerator[tuple[anyio.abc.ByteSendStream, anyio.abc.ByteReceiveStream]]:
    """Run a server that ends with this block, or with this process if it is killed.

    Yields:
        The streams to and from the server.
    """
    process = await anyio.open_process(
        _command(), stderr=None, env=_environment(), start_new_session=True
    )
    assert process.stdin is not None, "it was asked for"  # noqa: S101 - for the type checkers
    assert process.stdout is not None, "it was asked for"  # noqa: S101 - for the type checkers
    try:
        await process.stdin.send(_settings(root, persistent=False))
        yield process.stdin, process.stdout
    finally:
        with anyio.CancelScope(shield=True):
            # The end of its input is the server's end.
            with contextlib.suppress(anyio.BrokenResourceError):
                await process.stdin.aclose()
            with anyio.move_on_after(END_SECONDS) as ending:
                await process.wait()
            if ending.cancelled_caught:
                process.kill()
            await process.aclose()


async def start_detached(root: Path) -> anyio.abc.SocketStream:
    """Start a persistent server and connect to it.

    Raises:
        ProviderError: it did not start.
    """
    await anyio.run_process(
        _command(),
        input=_settings(root, persistent=True),
        stderr=None,
        env=_environment(),
        start_new_session=True,
    )
    stream = await find_server(root)
    if stream is None:
        raise ProviderError(f"the server of the local group did not start; see {root}/server.log")
    return stream


async def find_server(root: Path) -> anyio.abc.SocketStream | None:
    """Connect to the persistent server of a root; return None if none is running."""
    try:
        note = json.loads(await anyio.to_thread.run_sync(read_regular, root / "server.json"))
        # A cancellation while the server's queue is full would raise an error in the event loop:
        # AnyIO sets the result of a future that has just been cancelled.
        with anyio.fail_after(CONNECT_SECONDS, shield=True):
            return await anyio.connect_unix(note["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_lock(root: Path, name: str = "manager.lock") -> Any:
    return os.fdopen(open_regular(root / name, os.O_RDWR | os.O_CREAT, 0o600), "wb")


def _is_locked_now(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _command() -> list[str]:
    # Isolated: its imports do not depend on the current directory or the environment.
    return [sys.executable, "-I", "-X", "utf8", str(Path(__file__).with_name("_main.py"))]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}


def _settings(root: Path | None, *, persistent: bool) -> bytes:
    settings = {
        "root": str(root) if root is not None else None,
        "persistent": persistent,
        "path": [str(Path(entry).absolute()) for entry in sys.path],
    }
    return json.dumps(settings).encode() + b"\n"
