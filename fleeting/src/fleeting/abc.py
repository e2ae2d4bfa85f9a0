"""The contracts: a group of instances, the provider that opens it, a way to an instance.

These docstrings are the specification. Whoever implements a class finds here,
for each method, what it means, what may be raised, who tries again, and what
happens when the caller is cancelled; `fleeting.testing.InstanceGroupContract`
checks it.

What holds for every method of every class here:

* It is called on one event loop, and several calls may be under way at once.
* It may be cancelled at any await. It then raises the cancellation, leaves no
  task, socket or file open, and what the cloud has already accepted stays
  accepted: the next listing tells.
* It sets no deadline, retries nothing and logs no success: its caller does
  that, once, for all implementations. A library's own quick retry of a broken
  connection is no retry in this sense.
* It raises `FleetingError`s only. Anything else is a bug of the implementation.
* No message of an exception contains a secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from fleeting._run import run_command
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Self

    from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream

    from fleeting.types import (
        Accepted,
        Capability,
        Completed,
        ConnectInfo,
        Exit,
        Finding,
        GroupInfo,
        GroupSettings,
        Listing,
        Notice,
    )

__all__ = (
    "AsyncOutput",
    "Connection",
    "Connector",
    "InstanceGroup",
    "Output",
    "Process",
    "Provider",
)


class InstanceGroup(ABC):
    """A group of machines of one kind that can be made larger and smaller.

    A provider hands it out opened and closes it afterwards; see `Provider.open`.
    One scaler drives a group at a time. The group's state is a function of its
    listing and never of what this object remembers: others, and the cloud
    itself, change the group too.

    Attributes:
        info: what the group is; it does not change while the group is open.
    """

    info: GroupInfo

    @abstractmethod
    async def update(self) -> Listing:
        """Report every instance of the group, each id once, and how many have no id yet.

        An instance that is left out counts as missing, and after two such
        listings as gone: never leave one out because something about it could
        not be found out; report it as `UNKNOWN` instead. A state that the
        implementation has never heard of is `UNKNOWN` too. A sick instance is a
        value in the listing and never an exception, so that it cannot hide the
        others. An instance that `decrease` accepted is `DELETING`, or absent.

        Idempotent and without side effects. It costs one call of the cloud's
        interface if that is at all possible, whatever the group's size.

        Raises:
            ProviderError: the listing as a whole is not to be had; the caller keeps
                what it knew and asks again.
        """

    @abstractmethod
    async def increase(self, count: int, operation: str) -> Accepted:
        """Ask for `count` more instances.

        The request is accepted, not fulfilled: the new instances show in a later
        `update`, first perhaps as `pending`. Never wait for them here.

        Args:
            count: how many; at least 1.
            operation: names this request for ever. Where the cloud has tokens for
                idempotent requests, pass it on, so that repeating the call with
                the same operation adds nothing. Where it has none, ignore it; the
                caller repeats no increase whose outcome it does not know.

        Returns:
            How many were accepted, from 0 to `count`. When some but not all were,
            that is a value with `error` set, not an exception.

        Raises:
            OutcomeUnknown: the reply was lost; some, all or none may come.
            ProviderError: nothing was accepted, and the class says why.
        """

    @abstractmethod
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        """Remove these instances, running or not, and lower the group's size by as many.

        Idempotent: an id that is gone, is being removed or was never known counts
        as accepted. The group must not replace what was removed. An empty
        sequence does nothing. Never wait for the removal to be finished.

        Args:
            ids: as listings have them, or had them once.

        Returns:
            The accepted ids. If some were not, `error` says why, and the caller asks
            again later.

        Raises:
            OutcomeUnknown: the reply was lost; the caller asks again.
            ProviderError: nothing was accepted.
        """

    @abstractmethod
    async def connect_info(self, id: str) -> ConnectInfo:
        """Return how to reach a running instance, with credentials that are valid now.

        What the operator said in `GroupSettings.connector` is merged in by the
        caller; an implementation reads those settings only to provision
        credentials. May have the side effect of provisioning them, and is called
        again once `expires` has passed.

        Raises:
            InstanceGone: no such instance.
            InstanceUnhealthy: it exists but cannot be reached in its present state.
            ProviderError: the cloud did not answer the question; the caller asks again.
        """

    @abstractmethod
    async def heartbeat(self, id: str) -> None:
        """Return if the cloud holds the instance to be working; cheap, and not through SSH.

        Raises:
            InstanceGone: no such instance.
            InstanceUnhealthy: it is known not to work.
            ProviderError: the cloud did not answer, which says nothing about the instance.
        """

    async def suspend(self, ids: Sequence[str]) -> Accepted:
        """Stop these instances so that they cost less and can go on later.

        Called only with `Capability.SUSPEND`. Idempotent, partial success as in
        `decrease`. A suspended instance stays in the listing.

        Raises:
            NotSupported: the group has not the capability.
            ProviderError: nothing was accepted.
        """
        raise NotSupported(f"group {self.info.id} cannot suspend its instances ({len(ids)} asked)")

    async def resume(self, ids: Sequence[str]) -> Accepted:
        """Start suspended instances again; the contract is that of `suspend`.

        Raises:
            NotSupported: the group has not the capability.
            ProviderError: nothing was accepted.
        """
        raise NotSupported(f"group {self.info.id} cannot resume its instances ({len(ids)} asked)")

    def watch(self) -> AsyncIterator[Notice]:
        """Report interruptions as soon as they are announced, until cancelled.

        Called only with `Capability.WATCH`. A notice may come twice, late or not at
        all: the listing stays the truth.

        Raises:
            NotSupported: the group has not the capability.
            ProviderError: the source of notices failed; the caller starts it again.
        """
        raise NotSupported(f"group {self.info.id} announces no interruptions")


class Provider(ABC):
    """What a plugin registers: it knows how to open groups of one kind.

    An instance of it is created when the plugin is loaded, without arguments,
    and does nothing until asked; heavy libraries are imported in `open` or `check`.

    Attributes:
        name: the name of its entry point, as in `plugin = "name"`.
        config_type: a frozen `msgspec.Struct` with `forbid_unknown_fields=True`;
            `[plugin_config]` is decoded into it before anything is opened.
        capabilities: what its groups may be able to do beyond the ordinary, for people who
            choose a provider; what a group can really do is in its `info`.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @abstractmethod
    def open(
        self, config: Any, settings: GroupSettings
    ) -> AbstractAsyncContextManager[InstanceGroup]:
        """Return a context manager in which the group is open.

        Entering authenticates, checks that the group exists, and fills in `info`.
        Leaving ends what belongs to this object (connections, tasks, files), in
        the reverse order, also after an exception or a cancellation, and touches
        no instance: whether instances are to go is the caller's decision.

        Args:
            config: an instance of `config_type`.
            settings: what the provider may know of the scaler.

        Raises:
            ConfigError: on entering; the operator must change something.
            ProviderError: on entering; the cloud refused or did not answer.
        """

    @abstractmethod
    async def check(self, config: Any, settings: GroupSettings) -> Sequence[Finding]:
        """Look for everything that would hurt later: credentials, limits, settings of the group.

        Starts and changes nothing. What makes `open` fail is a finding here.

        Args:
            config: an instance of `config_type`.
            settings: what the provider may know of the scaler.

        Returns:
            The findings, the worst first; empty if all is well.
        """


class Output(Protocol):
    """Takes what a command writes, such as a file opened in binary mode.

    If it has a `flush`, that is called after each write, so that output is live.
    """

    def write(self, data: bytes, /) -> object:
        """Take some bytes, in order; blocking here blocks everybody."""


class AsyncOutput(Protocol):
    """Takes what a command writes; while it is busy, the command waits."""

    async def __call__(self, data: bytes, /) -> object:
        """Take some bytes, in order."""


class Process(ABC):
    """A command that runs on an instance.

    Attributes:
        stdin: closing it gives the command its end of file.
        stdout: ends when the command and all that share its output have closed it.
        stderr: likewise. An output that nobody reads blocks the command, not us.
    """

    stdin: ByteSendStream
    stdout: ByteReceiveStream
    stderr: ByteReceiveStream

    @abstractmethod
    async def wait(self) -> Exit:
        """Wait for the command to end. The end of its output is not the end of it.

        May be called repeatedly; cancelling it does not touch the command.

        Raises:
            ConnectionLost: the connection broke first; how the command ended, and
                whether it did, is not known.
        """

    @abstractmethod
    async def send_signal(self, signal: str) -> None:
        """Send a signal to the command and the processes of its group; after its end, do nothing.

        Args:
            signal: the name without `SIG`, such as `TERM`.

        Raises:
            ConnectionLost: the connection is broken.
        """


class Connection(ABC):
    """A way to one instance, over which many things can be done at the same time.

    Also an async context manager that closes itself. After the connection broke,
    every method raises `ConnectionLost`; a new one must be made.

    Attributes:
        host_keys: what the instance has shown to prove who it is, in OpenSSH format;
            empty where the protocol has nothing of the kind. Given back as
            `ConnectInfo.host_keys`, it makes sure that it is the same machine.
    """

    host_keys: tuple[str, ...] = ()

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Return whether the connection can still be used, as far as is known without trying."""

    @abstractmethod
    def start(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AbstractAsyncContextManager[Process]:
        """Return a context manager in which the command runs, with live streams.

        On leaving, a command that still runs gets TERM, a few seconds later KILL.

        Args:
            command: a command line for the user's shell on the instance.
            env: variables to add. They never travel on a command line, where other
                users of the instance could read them.
            cwd: where to run it; relative to the user's home, which is also the default.

        Raises:
            ConnectionLost: on entering or inside, the connection broke.
            ValueError: on entering, a variable's name cannot be one.
        """

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
        capture_limit: int = 16 * 1024 * 1024,
    ) -> Completed:
        """Run a command to its end. How it ended is a value and never an exception.

        Cancelling ends the command, as leaving `start` does.

        Args:
            command: a command line for the user's shell on the instance.
            stdin: what it reads; nothing by default, so it sees the end of file at once.
            stdout: where its output goes as it comes; by default it is kept and returned.
            stderr: likewise.
            env: variables to add; see `start`.
            cwd: where to run it; see `start`.
            timeout: after this time it is ended, and the result says so.
            capture_limit: how many bytes to keep of each output at most; what is
                beyond is dropped, and the result says so.

        Raises:
            ConnectionLost: the connection broke in the middle; the command's fate is unknown.
            ValueError: a variable's name cannot be one.
        """
        return await run_command(
            self.start(command, env=env, cwd=cwd),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout=timeout,
            capture_limit=capture_limit,
        )

    @abstractmethod
    async def put(self, source: Path, destination: str) -> None:
        """Copy a file or a whole folder to the instance, with its permission bits.

        Args:
            source: here.
            destination: there, the name of the copy itself; relative to the user's
                home. Missing folders above it are made; an existing file is replaced,
                an existing folder is merged into.

        Raises:
            TransferFailed: naming the path and the cause; what was copied so far stays.
            ConnectionLost: the connection broke.
        """

    @abstractmethod
    async def get(self, source: str, destination: Path) -> None:
        """Copy a file or a whole folder from the instance; see `put` for the rest.

        Raises:
            TransferFailed: naming the path and the cause; what was copied so far stays.
            ConnectionLost: the connection broke.
        """

    @abstractmethod
    async def glob(self, pattern: str) -> list[str]:
        """Return the paths on the instance that match, sorted; none is no error.

        Args:
            pattern: with `*`, `?`, `[...]` and `**`; relative to the user's home,
                and the answers are relative then too.

        Raises:
            ConnectionLost: the connection broke.
            TransferFailed: a folder could not be read.
        """

    async def open_tcp(self, host: str, port: int) -> ByteStream:
        """Open a stream to an address as seen from the instance.

        Raises:
            NotSupported: this kind of connection cannot.
            Unreachable: nobody listens there, or the instance does not permit it.
            ConnectionLost: the connection broke.
        """
        raise NotSupported(f"this connection opens no TCP streams (to {host}:{port})")

    async def open_unix(self, path: str) -> ByteStream:
        """Open a stream to a Unix socket on the instance.

        Raises:
            NotSupported: this kind of connection cannot.
            Unreachable: nobody listens there, or the instance does not permit it.
            ConnectionLost: the connection broke.
        """
        raise NotSupported(f"this connection opens no Unix sockets (to {path})")

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection and end what still runs through it.

        Idempotent; raises nothing for a connection that is already broken. When
        cancelled, it closes at once instead of politely.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Connector(ABC):
    """Makes connections of one protocol; registered by a plugin like a provider.

    Attributes:
        protocol: the name of its entry point, as in `ConnectInfo.protocol`.
    """

    protocol: ClassVar[str]

    @abstractmethod
    async def connect(self, info: ConnectInfo) -> Connection:
        """Make one connection, within `info.timeout` or a default of its own.

        Busy or booting instances are tried again until then. Cancelling leaves no
        half-open connection behind. Several calls may be under way; the connector
        bounds how many handshakes it has with one host at a time.

        Raises:
            Unreachable: it did not come about in time, with the last cause.
            AuthenticationFailed: the instance refused the credentials; not tried again.
            HostKeyMismatch: the instance is not the one it should be; not tried again.
            NotSupported: the information asks for something this connector cannot do.
        """
