"""The values that providers, connectors and their users exchange.

All of them are frozen, so a value can be kept, compared and passed to another task
safely. Durations are `timedelta`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

from fleeting._jumps import Jump, JumpSettings, read_key_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from fleeting.errors import ProviderError

__all__ = (
    "Accepted",
    "Capability",
    "Completed",
    "ConnectInfo",
    "ConnectorSettings",
    "CreationFailure",
    "Duration",
    "Exit",
    "Finding",
    "GroupInfo",
    "GroupSettings",
    "Instance",
    "Jump",
    "JumpSettings",
    "Listing",
    "Notice",
    "Severity",
    "State",
)


class Duration(timedelta):
    """A length of time as configuration files write it: `"20m0s"`, `"1h30m"`, `"250ms"`, `"0"`.

    The notation is Go's: one or more numbers, each with a unit (h, m, s, ms, us, ns)
    and possibly a fraction, and an optional sign before the first.
    """

    # Decimal and not float, so that the value in the file is read exactly.
    _UNIT_MICROSECONDS: ClassVar[Mapping[str, Decimal]] = {
        "h": Decimal(3_600_000_000),
        "m": Decimal(60_000_000),
        "s": Decimal(1_000_000),
        "ms": Decimal(1_000),
        "us": Decimal(1),
        "\u00b5s": Decimal(1),  # the micro sign
        "\u03bcs": Decimal(1),  # the Greek letter
        "ns": Decimal("0.001"),
    }
    _PART: ClassVar[re.Pattern[str]] = re.compile(
        r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|\u00b5s|\u03bcs|ns|m|s)"
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a duration.

        Raises:
            ValueError: the text is not a duration; the message is suitable for users.
        """
        body = text.strip()
        sign = -1 if body.startswith("-") else 1
        body = body.removeprefix("-") if sign < 0 else body.removeprefix("+")
        if body == "0":
            return cls(0)
        parts = list(cls._PART.finditer(body))
        if not parts or "".join(part.group() for part in parts) != body:
            raise ValueError(
                f'{text!r} is not a duration; write for example "90s", "20m" or "1h30m"'
            )
        try:
            total = sum(Decimal(part[1]) * cls._UNIT_MICROSECONDS[part[2]] for part in parts)
            return cls(microseconds=sign * round(total))
        except (ArithmeticError, OverflowError):
            raise ValueError(f"{text!r} is longer than the longest supported duration") from None

    def __str__(self) -> str:
        """Return the duration in the notation of files, in hours, minutes and seconds."""
        total = self // timedelta(microseconds=1)
        sign = "-" if total < 0 else ""
        minutes, microseconds = divmod(abs(total), 60_000_000)
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h" if hours else ""
        text += f"{minutes}m" if minutes else ""
        if microseconds or not text:
            seconds, microseconds = divmod(microseconds, 1_000_000)
            text += f"{seconds}.{microseconds:06}".rstrip("0").rstrip(".") + "s"
        return sign + text


class State(enum.Enum):
    """The state of an instance as its cloud reports it.

    The scaler removes a `FAILED` instance, because it will never become ready. It keeps
    an `UNKNOWN` one and does not use it until a later listing says more.

    Attributes:
        CREATING: requested, and not running yet.
        RUNNING: accepts connections, now or shortly.
        DELETING: being removed; this cannot be undone.
        SUSPENDING: being stopped, to be resumed later.
        SUSPENDED: stopped; can be resumed.
        RESUMING: starting again after being suspended.
        FAILED: did not start, or broke.
        UNKNOWN: the cloud reported no state, or one that the provider does not know.
    """

    CREATING = "creating"
    RUNNING = "running"
    DELETING = "deleting"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Capability(enum.Enum):
    """An optional ability of a group.

    Attributes:
        SUSPEND: its instances can be suspended and resumed.
        WATCH: it announces interruptions of its instances in advance.
    """

    SUSPEND = "suspend"
    WATCH = "watch"


@dataclass(frozen=True, slots=True)
class Instance:
    """One member of a group, as a listing reports it.

    Attributes:
        id: its name in its group, as the cloud's API uses it.
        state: as the cloud reports it.
        incarnation: distinguishes a machine that was recreated under the same id from its
            predecessor; None if the cloud does not tell, or not yet. A change from None
            to a value is not a replacement.
        reason: a human-readable reason for the state; mostly given with `FAILED`.
        replaces: the id of the earlier member in whose place the cloud created this one
            without being asked, if the provider knows. This one then belongs to the same
            scaler. Only the first listing that shows the instance counts.
    """

    id: str
    state: State
    incarnation: str | None = None
    reason: str | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class CreationFailure:
    """Reports that one instance that a group had accepted will not be created after all.

    It may be in any number of listings, and is one failure however often it is read.

    Attributes:
        id: names the failure in its group; never used for another one.
        error: why the instance will not be created.
    """

    id: str
    error: ProviderError


@dataclass(frozen=True, slots=True)
class Listing:
    """The whole group at one moment.

    Attributes:
        instances: every member, in any order, each id once.
        pending: the number of members that the cloud will create and has no id for yet.
        failures: one for each accepted instance that will not be created after all.
    """

    instances: tuple[Instance, ...] = ()
    pending: int = 0
    failures: tuple[CreationFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """How much of a request a group accepted; partial success is a value.

    Attributes:
        count: how many of the requested creations or removals were accepted.
        ids: the accepted ids. `decrease`, `suspend` and `resume` always set it; `increase`
            only if the cloud returns ids at once.
        error: why the rest was not accepted; None if everything was.
    """

    count: int
    ids: tuple[str, ...] = ()
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """Describes an open group.

    Attributes:
        id: a permanent and globally unique name of the group, such as
            `aws/123456789012/eu-central-1/builders`.
        max_size: the maximum number of instances; None if it has no known limit.
        version: the version of the plugin.
        capabilities: its optional abilities.
        private: whether it exists only in this process, so that no other can open it. It
            needs no lock.
        temporary: whether its instances end when the group is closed.
    """

    id: str
    max_size: int | None = None
    version: str = ""
    capabilities: frozenset[Capability] = frozenset()
    private: bool = False
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """Announces the interruption of an instance: the cloud will take it away.

    Attributes:
        id: the instance.
        reason: human-readable.
        deadline: when it will be gone at the latest; None if the cloud does not say.
    """

    id: str
    reason: str
    deadline: datetime | None = None


class Severity(enum.Enum):
    """The severity of a finding.

    Attributes:
        ERROR: the group cannot be used until it is fixed.
        WARNING: it will cause problems later.
        INFO: worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of `Provider.check`.

    Attributes:
        severity: how serious it is.
        code: a stable identifier for scripts, such as `az-rebalance`.
        reason: one sentence that states the fact and why it matters.
        fix: the command or setting that fixes it; empty if nothing needs fixing.
    """

    severity: Severity
    code: str
    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """The operator's settings for connecting to instances (`[connector_config]`).

    A setting overrides the provider's value; None leaves that as it is. An attribute that
    is not described here has the meaning that it has in `ConnectInfo`.

    Attributes:
        os: see `ConnectInfo.os`.
        protocol_port: the port.
        key_path: the file with the private key.
        use_static_credentials: do not provision credentials for each instance: a provider
            that would create or push a key does not, and the operator's own are used.
        keepalive: how often to test an idle connection.
        timeout: the total time for making one connection.
        use_external_addr: whether to prefer the external address.
        jump: the hosts on the way, the first to connect to first.
        slot_users: the user to log in as for each slot of an instance, in order; empty if all
            slots share one user.
    """

    os: str | None = None
    arch: str | None = None
    protocol: str | None = None
    protocol_port: int | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    key_path: Path | None = None
    use_static_credentials: bool = False
    keepalive: timedelta | None = None
    timeout: timedelta | None = None
    use_external_addr: bool = False
    jump: tuple[JumpSettings, ...] = ()
    proxy_command: tuple[str, ...] = ()
    slot_users: tuple[str, ...] = ()

    def read_private_key(self) -> str | None:
        """Read the file at `key_path`; return None if that is not set.

        Raises:
            ConfigError: the file cannot be read as text. The message names the file and
                never contains a part of it.
        """
        if self.key_path is None:
            return None
        return read_key_file(self.key_path, "connector_config.key_path")

    def read_jumps(self) -> tuple[Jump, ...]:
        """Return the hosts on the way, with the private keys that their files contain.

        Raises:
            ConfigError: see `read_private_key`.
        """
        found: list[Jump] = []
        for index, one in enumerate(self.jump):
            where = f"connector_config.jump[{index}].key_path"
            key = read_key_file(one.key_path, where) if one.key_path else None
            found.append(replace(one.jump, private_key=key))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """The settings of a scaler that concern the provider of its group.

    Attributes:
        maximum: how many instances the scaler requests at most; None if unlimited.
        connector: the operator's settings for connecting to the instances.
    """

    maximum: int | None = None
    connector: ConnectorSettings = field(default_factory=ConnectorSettings)


@dataclass(frozen=True, slots=True)
class ConnectInfo:
    """How to connect to one instance. Its `repr` leaves out secrets.

    Attributes:
        id: the instance.
        protocol: the name of a connector: `ssh`, `docker`, `winrm` or a plugin's own.
        internal_address: a host name or an address; empty if there is none.
        external_address: the same, as seen from outside the cloud's network; empty if there
            is none.
        port: None means the protocol's default.
        os: as Go names it: `linux`, `darwin`, `windows`.
        arch: as Go names it: `amd64`, `arm64`; empty if unknown.
        username: the user to log in as.
        private_key: in OpenSSH or PEM format.
        password: tried if there is no key, or if the key is refused.
        host_keys: public keys in OpenSSH format; the instance must show one of them. If empty,
            the connector pins the key that the instance shows first.
        incarnation: distinguishes the machine from an earlier one with the same id at the same
            address, and may be any text. A pinned key belongs to it. A provider need not set it.
        expires: when the credentials expire; None if they do not.
        keepalive: how often to test an idle connection; None leaves it to the connector.
        timeout: the total time for making one connection; None leaves it to the connector.
        use_external_address: prefer the external address if there is one.
        jumps: the hosts on the way, the first to connect to first.
        proxy_command: a program with its arguments whose standard input and output are the way
            to the instance. In each argument `{host}`, `{port}`, `{id}` and `{username}` stand
            for the values of the instance. There is either this or `jumps`.
    """

    id: str
    protocol: str
    internal_address: str = ""
    external_address: str = ""
    port: int | None = None
    os: str = "linux"
    arch: str = ""
    username: str = ""
    private_key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    host_keys: tuple[str, ...] = ()
    incarnation: str = ""
    expires: datetime | None = None
    keepalive: timedelta | None = None
    timeout: timedelta | None = None
    use_external_address: bool = False
    jumps: tuple[Jump, ...] = ()
    proxy_command: tuple[str, ...] = field(default=(), repr=False)

    @property
    def address(self) -> str:
        """Return the address to connect to; empty if the instance has none."""
        if self.use_external_address and self.external_address:
            return self.external_address
        return self.internal_address or self.external_address

    def with_settings(self, settings: ConnectorSettings) -> ConnectInfo:
        """Return a copy in which the operator's settings override the provider's values.

        Raises:
            ConfigError: a key file of the settings cannot be read.
        """
        key = settings.read_private_key()
        # The operator's way replaces that of the provider as a whole.
        own_way = bool(settings.jump or settings.proxy_command)
        return replace(
            self,
            os=settings.os or self.os,
            arch=settings.arch or self.arch,
            protocol=settings.protocol or self.protocol,
            port=settings.protocol_port or self.port,
            username=settings.username or self.username,
            password=settings.password or self.password,
            keepalive=settings.keepalive or self.keepalive,
            timeout=settings.timeout or self.timeout,
            private_key=self.private_key if key is None else key,
            use_external_address=settings.use_external_addr or self.use_external_address,
            jumps=settings.read_jumps() if own_way else self.jumps,
            proxy_command=settings.proxy_command if own_way else self.proxy_command,
        )


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: by itself with a status, or by a signal.

    Attributes:
        status: the exit status, 0 for success; None if a signal ended it.
        signal: the signal's name without `SIG`, such as `KILL`; None if it ended by itself.
    """

    status: int | None
    signal: str | None = None

    @property
    def succeeded(self) -> bool:
        """Return whether the command ended by itself with status 0."""
        return self.status == 0


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of `Connection.run`.

    Attributes:
        status: the exit status; None if a signal or the timeout ended the command.
        signal: the signal that ended it, without `SIG`; None if it ended by itself.
        timed_out: whether it was ended because of the timeout.
        stdout: its output, unless it was directed elsewhere.
        stderr: likewise.
        truncated: whether output beyond `capture_limit` was dropped.
    """

    status: int | None
    signal: str | None = None
    timed_out: bool = False
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    truncated: bool = False

    @property
    def succeeded(self) -> bool:
        """Return whether the command ended by itself, in time and with status 0."""
        return self.status == 0 and not self.timed_out
