"""All errors that `fleeting` raises on purpose, in one tree.

FleetingError
├── ConfigError
├── PluginError
│   ├── PluginNotFound
│   ├── PluginMismatch
│   ├── PluginConflict
│   └── PluginBroken
├── InstallError
├── ProviderError
│   ├── Throttled
│   ├── OutOfCapacity
│   ├── QuotaExceeded
│   ├── PermissionDenied
│   ├── GroupGone
│   └── OutcomeUnknown
├── GroupHeld
├── InstanceError
│   ├── InstanceGone
│   └── InstanceUnhealthy
└── ConnectorError
    ├── NotSupported
    ├── Unreachable
    ├── AuthenticationFailed
    ├── HostKeyMismatch
    ├── ConnectionLost
    └── TransferFailed

The class says where the fault lies and who can fix it. The operator fixes a
`ConfigError` or a `PluginError`. An `InstallError` comes from the package
installer or the index, and a `ProviderError` from the cloud. `GroupHeld` means
that another process drives the group. An `InstanceError` concerns one instance
and never its group. A `ConnectorError` concerns the connection to an instance.
A class exists only where callers react to it differently. Every message is one
sentence that says what happened, where, and what to do. No message contains a
secret: `str` hides those that this process knows, escapes what is not printable,
and cuts a message that is too long for a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fleeting._text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

__all__ = (
    "AuthenticationFailed",
    "ConfigError",
    "ConnectionLost",
    "ConnectorError",
    "FleetingError",
    "GroupGone",
    "GroupHeld",
    "HostKeyMismatch",
    "InstallError",
    "InstanceError",
    "InstanceGone",
    "InstanceUnhealthy",
    "NotSupported",
    "OutOfCapacity",
    "OutcomeUnknown",
    "PermissionDenied",
    "PluginBroken",
    "PluginConflict",
    "PluginError",
    "PluginMismatch",
    "PluginNotFound",
    "ProviderError",
    "QuotaExceeded",
    "Throttled",
    "TransferFailed",
    "Unreachable",
)


# Long enough for a list of instances; what a cloud says may be a page of HTML.
_MESSAGE_CHARACTERS = 1000


class FleetingError(Exception):
    """The base class of all errors that this distribution raises on purpose."""

    def __str__(self) -> str:
        return _bounded(super().__str__())


def _bounded(text: str) -> str:
    text = plain(text)
    return text if len(text) <= _MESSAGE_CHARACTERS else f"{text[:_MESSAGE_CHARACTERS]}..."


class ConfigError(FleetingError):
    """The configuration is invalid; nothing was started.

    Attributes:
        problems: at least one; each is a sentence with the place, the problem and the fix.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))

    def __str__(self) -> str:
        return "\n".join(map(_bounded, self.problems))


class PluginError(FleetingError):
    """A plugin cannot be used. Other plugins are not affected."""


class PluginNotFound(PluginError):
    """No installed distribution has a plugin of this name.

    Attributes:
        name: the requested name.
        installed: the names of the installed plugins of that kind.
    """

    def __init__(self, kind: str, name: str, installed: Sequence[str], hint: str) -> None:
        self.name = name
        self.installed = tuple(installed)
        known = ", ".join(installed) or "none"
        super().__init__(f"no {kind} named {name!r} is installed (installed: {known}); {hint}")


class PluginMismatch(PluginError):
    """A plugin is installed in another version than the requested one.

    Attributes:
        name: the plugin.
        version: the installed version.
    """

    def __init__(self, name: str, version: str, reference: str) -> None:
        self.name = name
        self.version = version
        super().__init__(
            f"plugin {name!r} is installed in version {version}, but {reference!r} was requested; "
            f"run `fleeting install --upgrade {reference}`, or request the installed version"
        )


class PluginConflict(PluginError):
    """Several distributions register one name; none is used until only one is left.

    Attributes:
        name: the name that they register.
        distributions: their names, each with its version.
    """

    def __init__(self, kind: str, name: str, distributions: Sequence[str]) -> None:
        self.name = name
        self.distributions = tuple(distributions)
        super().__init__(
            f"the {kind} name {name!r} is claimed by {' and by '.join(distributions)}; "
            "uninstall all but one of them"
        )


class PluginBroken(PluginError):
    """An installed plugin cannot be imported, or registers nothing usable.

    Attributes:
        name: the name of its entry point.
        distribution: the distribution that contains it.
        ADVICE: the end of the message, which supposes that the plugin stays installed.
    """

    ADVICE: ClassVar = "; reinstall or upgrade it, or report this to its author"

    def __init__(self, name: str, distribution: str, reason: str) -> None:
        self.name = name
        self.distribution = distribution
        super().__init__(f"plugin {name!r} of {distribution} is broken: {reason}{self.ADVICE}")


class InstallError(FleetingError):
    """A plugin could not be installed or removed; the message says what is installed now.

    Attributes:
        retryable: whether the installer, the system or the network failed, so that the same
            command can succeed later; otherwise the plugin does not work.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        self.retryable = retryable
        super().__init__(message)


class ProviderError(FleetingError):
    """A call to the group failed; the caller decides whether to retry.

    Attributes:
        retryable: whether the same call can succeed later without an operator's help.
        retry_after: how long the cloud asks to wait; None if it does not say.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Throttled(ProviderError):
    """The cloud rejected the request because there were too many; nothing was done."""


class OutOfCapacity(ProviderError):
    """The cloud has no capacity for this kind of instance now; another group may have some."""


class QuotaExceeded(ProviderError):
    """A limit of the account is reached; nothing was done. An operator can raise the limit."""


class PermissionDenied(ProviderError):
    """The credentials are missing, expired, or lack the permission."""

    retryable = False


class GroupGone(ProviderError):
    """The group does not exist, or is being deleted."""

    retryable = False


class OutcomeUnknown(ProviderError):
    """The reply was lost, so the request may or may not have been carried out.

    The next listing shows the result. Do not retry an increase: retrying may create,
    and bill, duplicate instances.
    """


class GroupHeld(FleetingError):
    """Another process drives the group; nothing was done.

    Attributes:
        id: the group, `GroupInfo.id`.
        holder: a human-readable description of the process; empty if unknown.
    """

    def __init__(self, id: str, holder: str, advice: str = "stop that one first") -> None:
        self.id = id
        self.holder = holder
        who = f" ({holder})" if holder else ""
        super().__init__(f"group {id} is driven by another process now{who}; {advice}")


class InstanceError(FleetingError):
    """An operation failed for one instance; the other instances of its group are not affected.

    Attributes:
        id: the instance.
    """

    def __init__(self, id: str, message: str) -> None:
        self.id = id
        super().__init__(message)


class InstanceGone(InstanceError):
    """The instance does not exist, or no longer exists."""


class InstanceUnhealthy(InstanceError):
    """The instance exists, but it is not healthy or cannot be reached in its present state."""


class ConnectorError(FleetingError):
    """The connection to an instance failed."""


class NotSupported(ConnectorError):
    """This connection or group does not have the requested feature; retrying does not help."""


class Unreachable(ConnectorError):
    """No connection was made in time; a later attempt may succeed."""


class AuthenticationFailed(ConnectorError):
    """The instance answered and refused the credentials."""


class HostKeyMismatch(ConnectorError):
    """The instance showed an unexpected host key; no credentials were sent to it."""


class ConnectionLost(ConnectorError):
    """An established connection broke; commands that ran through it may still run."""


class TransferFailed(ConnectorError):
    """A file could not be copied: it is missing or not permitted, or the disk is full.

    Attributes:
        local: whether the fault is that of the file or the disk on this computer; otherwise it is
            the instance's.
    """

    def __init__(self, message: str, *, local: bool = False) -> None:
        self.local = local
        super().__init__(message)
