"""The values that providers, connectors and their users exchange.

All of them are frozen: a value can be kept, compared and sent to another task
without anybody changing it meanwhile. Durations are `timedelta`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar

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
    "Duration",
    "Exit",
    "Finding",
    "GroupInfo",
    "GroupSettings",
    "Instance",
    "Listing",
    "Notice",
    "Severity",
    "State",
)


class Duration(timedelta):
    """A length of time as files write it: `"20m0s"`, `"1h30m"`, `"250ms"`, `"0"`.

    The notation is that of Go: numbers with a unit each (h, m, s, ms, us, ns),
    with fractions, and a sign in front of the whole.
    """

    # Decimal and not float: what a file says is to be read exactly.
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
        """Read a duration.

        Raises:
            ValueError: the text is no duration; the message is for the one who wrote it.
        """
        body = text.strip()
        sign = -1 if body.startswith("-") else 1
        body = body.removeprefix("-") if sign < 0 else body.removeprefix("+")
        if body == "0":
            return cls(0)
        parts = list(cls._PART.finditer(body))
        if not parts or "".join(part.group() for part in parts) != body:
            raise ValueError(f'{text!r} is no duration: write for instance "90s", "20m" or "1h30m"')
        try:
            total = sum(Decimal(part[1]) * cls._UNIT_MICROSECONDS[part[2]] for part in parts)
            return cls(microseconds=sign * round(total))
        except (ArithmeticError, OverflowError):
            raise ValueError(f"{text!r} is longer than a duration can be") from None

    def __str__(self) -> str:
        """Write it as a file would, in hours, minutes and seconds."""
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
    """What the cloud says about an instance.

    A `FAILED` one will never serve and is to be removed; an `UNKNOWN` one is
    kept and left alone until the next listing.

    Attributes:
        CREATING: it was asked for and does not run yet.
        RUNNING: it can be connected to, now or in a moment.
        DELETING: it goes away and does not come back.
        SUSPENDING: it stops, to go on later.
        SUSPENDED: it does not run, and can be resumed.
        RESUMING: it starts again.
        FAILED: it did not come up, or broke.
        UNKNOWN: the cloud did not say, or said something unheard of.
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
    """What a group can do beyond the ordinary.

    Attributes:
        SUSPEND: its instances can be stopped and go on later.
        WATCH: it announces that it will take an instance away.
    """

    SUSPEND = "suspend"
    WATCH = "watch"


@dataclass(frozen=True, slots=True)
class Instance:
    """One member of a group, as a listing reports it.

    Attributes:
        id: its name in its group, as the cloud's calls use it.
        state: what the cloud says about it.
        incarnation: tells a machine that was recreated under the same id from its
            predecessor; None where the cloud cannot tell or does not yet know. Going
            from None to a value is not a replacement.
        reason: why it is in that state, for people; mostly given with `FAILED`.
    """

    id: str
    state: State
    incarnation: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The whole group at one moment.

    Attributes:
        instances: every member, in any order, each id once.
        pending: members that the cloud means to create and has no id for yet.
        failures: what became of accepted requests that will not be carried out
            after all, each reported once.
    """

    instances: tuple[Instance, ...] = ()
    pending: int = 0
    failures: tuple[ProviderError, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a group agreed to do; partial success is a value.

    Attributes:
        count: how many of the requested creations or removals were accepted.
        ids: the accepted ids; always given by `decrease`, `suspend` and `resume`, by
            `increase` only where the cloud names instances at once.
        error: why the rest was not accepted; None if all was.
    """

    count: int
    ids: tuple[str, ...] = ()
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """What a group is, known as soon as it is open.

    Attributes:
        id: names the group for ever and everywhere, such as
            `aws/123456789012/eu-central-1/builders`.
        max_size: how many instances it can have at most; None if it knows no limit.
        version: of the plugin.
        capabilities: what it can do beyond the ordinary.
    """

    id: str
    max_size: int | None = None
    version: str = ""
    capabilities: frozenset[Capability] = frozenset()


@dataclass(frozen=True, slots=True)
class Notice:
    """An instance will be taken away.

    Attributes:
        id: the instance.
        reason: for people.
        deadline: when it will be gone at the latest, if the cloud says so.
    """

    id: str
    reason: str
    deadline: datetime | None = None


class Severity(enum.Enum):
    """How much a finding matters.

    Attributes:
        ERROR: nothing will work before it is mended.
        WARNING: it will hurt one day.
        INFO: it is good to know.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a provider noticed about its group before anything was started.

    Attributes:
        severity: how much it matters.
        code: a stable word for scripts, such as `az-rebalance`.
        reason: what is the case and why it matters, in one sentence.
        fix: the command or setting that mends it; empty if nothing is to be mended.
    """

    severity: Severity
    code: str
    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What the operator said about reaching the instances; None means nothing.

    What is said here wins over what the provider knows.

    Attributes:
        os: this and all that has no words here is as in `ConnectInfo`.
        protocol_port: the port.
        key_path: the file with the private key.
        use_static_credentials: do not provision credentials for each instance; a provider
            that would make or push a key leaves it out, and the operator's own are used.
        keepalive: how often an idle connection is tested.
        timeout: the total time for one connection to come about.
        use_external_addr: whether to prefer the external address.
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


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """What a provider may know of the scaler that drives its group.

    Attributes:
        maximum: how many instances will be asked for at most; None if unlimited.
        connector: what the operator said about reaching the instances.
    """

    maximum: int | None = None
    connector: ConnectorSettings = field(default_factory=ConnectorSettings)


@dataclass(frozen=True, slots=True)
class ConnectInfo:
    """How to reach one instance. Secrets are left out of its `repr`.

    Attributes:
        id: the instance.
        protocol: the name of a connector: `ssh`, `docker`, `winrm` or a plugin's own.
        internal_address: a host name or an address; empty if there is none.
        external_address: the same, as seen from outside; empty if there is none.
        port: None means the protocol's own.
        os: as Go names it: `linux`, `darwin`, `windows`.
        arch: as Go names it: `amd64`, `arm64`; empty if it is not known.
        username: whom to log in as.
        private_key: in OpenSSH or PEM format.
        password: tried if there is no key, or it is refused.
        host_keys: public keys in OpenSSH format, of which the instance must show one;
            empty if the provider does not know them, and then the key shown first is
            the one that must be shown from then on.
        expires: when the credentials cease to be valid; None if they stay.
        keepalive: how often an idle connection is tested; None leaves it to the connector.
        timeout: the total time for one connection to come about; None likewise.
        use_external_address: prefer the external address if there is one.
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
    expires: datetime | None = None
    keepalive: timedelta | None = None
    timeout: timedelta | None = None
    use_external_address: bool = False

    @property
    def address(self) -> str:
        """Return the address to dial; empty if the instance has none."""
        if self.use_external_address and self.external_address:
            return self.external_address
        return self.internal_address or self.external_address

    def with_settings(self, settings: ConnectorSettings) -> ConnectInfo:
        """Return a copy in which everything that the operator said has won.

        Raises:
            OSError: the key file of the settings cannot be read.
            UnicodeError: it is no text, and so no key in OpenSSH or PEM format.
        """
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
            private_key=settings.key_path.read_text() if settings.key_path else self.private_key,
            use_external_address=settings.use_external_addr or self.use_external_address,
        )


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended: by itself with a status, or by a signal.

    Attributes:
        status: 0 is success; None if a signal ended it.
        signal: the signal's name without `SIG`, such as `KILL`; None if it ended by itself.
    """

    status: int | None
    signal: str | None = None

    @property
    def succeeded(self) -> bool:
        """Return whether it ended by itself with status 0."""
        return self.status == 0


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind.

    Attributes:
        status: its exit status; None if a signal or our timeout ended it.
        signal: the signal that ended it, without `SIG`; None if it ended by itself.
        timed_out: whether it was ended because its time was up.
        stdout: what it wrote, unless that went elsewhere.
        stderr: the same.
        truncated: whether more was written than was to be kept.
    """

    status: int | None
    signal: str | None = None
    timed_out: bool = False
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    truncated: bool = False

    @property
    def succeeded(self) -> bool:
        """Return whether it ended by itself, in time and with status 0."""
        return self.status == 0 and not self.timed_out
