"""A connection that records whether the instance answered the task that uses it.

The end of a task proves nothing about its instance: a task on a dead instance hangs until
its timeout, and the connection may look open all the time. Only an answer proves that an
instance works: a command that ended, or a copy that was completed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from fleeting.abc import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from anyio.abc import ByteStream

    from fleeting.abc import AsyncOutput, CopyBudget, Output, Process, Terminal
    from fleeting.types import Completed
    from taskscaler.runtime.claims import Claim

__all__ = ("WitnessedConnection",)

T = TypeVar("T")


class WitnessedConnection(Connection):
    """The shared connection to an instance, as one task uses it.

    Args:
        connection: the shared one.
        claim: the task's; learns how the last use ended.
    """

    def __init__(self, connection: Connection, claim: Claim) -> None:
        self.host_keys = connection.host_keys
        self._connection = connection
        self._claim = claim

    def __getattr__(self, name: str) -> object:
        """Return what the connector of a plugin offers in addition to the contract."""
        return getattr(self._connection, name)

    @property
    def is_open(self) -> bool:
        """Return whether the connection is usable."""
        return self._connection.is_open

    def start(
        self, command: str, *, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> AbstractAsyncContextManager[Process]:
        """Start a command. Whether the instance answers is not known here."""
        self._claim.proved = False
        return self._connection.start(command, env=env, cwd=cwd)

    async def run(
        self,
        command: str,
        *,
        stdin: bytes | AsyncIterable[bytes] | None = None,
        stdout: Output | AsyncOutput | None = None,
        stderr: Output | AsyncOutput | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: timedelta | None = None,
        grace: timedelta = timedelta(seconds=3),
        capture_limit: int = 16 * 1024 * 1024,
    ) -> Completed:
        """Run a command; it proves something unless it was ended from here."""
        completed = await self._answer(
            self._connection.run(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd=cwd,
                timeout=timeout,
                grace=grace,
                capture_limit=capture_limit,
            )
        )
        self._claim.proved = not completed.timed_out
        return completed

    def open_shell(
        self, *, kind: str, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        """Open a shell on a terminal. Whether the instance answers is not known here."""
        self._claim.proved = False
        return self._connection.open_shell(kind=kind, columns=columns, rows=rows)

    async def put(self, source: Path, destination: str) -> None:
        """Copy to the instance."""
        await self._answer(self._connection.put(source, destination))

    async def get(
        self,
        source: str,
        destination: Path,
        *,
        follow: bool = True,
        budget: CopyBudget | None = None,
    ) -> None:
        """Copy from the instance."""
        await self._answer(self._connection.get(source, destination, follow=follow, budget=budget))

    async def glob(self, pattern: str, *, budget: CopyBudget | None = None) -> list[str]:
        """Return the paths on the instance that match."""
        return await self._answer(self._connection.glob(pattern, budget=budget))

    async def open_tcp(self, host: str, port: int) -> ByteStream:
        """Open a stream to an address as seen from the instance."""
        return await self._answer(self._connection.open_tcp(host, port))

    async def open_unix(self, path: str) -> ByteStream:
        """Open a stream to a Unix socket on the instance."""
        return await self._answer(self._connection.open_unix(path))

    async def aclose(self) -> None:
        """Close the shared connection."""
        await self._connection.aclose()

    async def _answer(self, use: Awaitable[T]) -> T:
        """Wait for the end of a use; one that fails or is cancelled proves nothing."""
        self._claim.proved = False
        result = await use
        self._claim.proved = True
        return result
