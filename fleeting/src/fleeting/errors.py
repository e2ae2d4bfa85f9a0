"""Everything that can go wrong, drawn as one tree.

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

The class says whose fault it is and what to do: `ConfigError` and
`PluginError` are for the operator to mend, an `InstallError` is the answer of
the package installer or of the index, a `ProviderError` is the cloud's,
`GroupHeld` says that another process is at work on the group, an
`InstanceError` concerns one instance and never its group, a `ConnectorError`
is what lies between here and the instance. A class exists only where somebody
reacts to it differently. Every message is one sentence: what, where, what to
do; and none of them ever holds a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


class FleetingError(Exception):
    """The root: catch it to catch everything this distribution raises on purpose."""


class ConfigError(FleetingError):
    """What the operator wrote cannot be used; nothing was started.

    Attributes:
        problems: one sentence each, at least one: where, what, and the fix.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class PluginError(FleetingError):
    """A plugin cannot be used; the other plugins are not affected."""


class PluginNotFound(PluginError):
    """No installed distribution offers this name.

    Attributes:
        name: the name that was asked for.
        installed: the names that could have been asked for.
    """

    def __init__(self, kind: str, name: str, installed: Sequence[str], hint: str) -> None:
        self.name = name
        self.installed = tuple(installed)
        known = ", ".join(installed) or "none"
        super().__init__(f"no {kind} named {name!r} is installed (installed: {known}); {hint}")


class PluginMismatch(PluginError):
    """A plugin is installed, and not in the version that was asked for.

    Attributes:
        name: of the plugin.
        version: that is installed.
    """

    def __init__(self, name: str, version: str, reference: str) -> None:
        self.name = name
        self.version = version
        super().__init__(
            f"plugin {name!r} is installed in version {version}, and {reference!r} is asked for; "
            f"run `fleeting install --upgrade {reference}`, or ask for the version that is there"
        )


class PluginConflict(PluginError):
    """Two distributions claim one name; neither is used until one is uninstalled.

    Attributes:
        name: the name that they claim.
        distributions: who claims it, each with its version.
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
        name: of its entry point.
        distribution: that carries it.
    """

    def __init__(self, name: str, distribution: str, reason: str) -> None:
        self.name = name
        self.distribution = distribution
        super().__init__(
            f"plugin {name!r} of {distribution} is installed but broken: {reason}; "
            "reinstall or upgrade it, or tell its author"
        )


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
    """A call to the group failed; who called decides about another try.

    Attributes:
        retryable: whether the same call can succeed later without anybody's help.
        retry_after: how long the cloud asks us to wait, or None if it said nothing.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Throttled(ProviderError):
    """The cloud took the request for one too many; nothing was done."""


class OutOfCapacity(ProviderError):
    """The cloud has no such machine to give now; another group may have."""


class QuotaExceeded(ProviderError):
    """The account's own limit is reached; nothing was done, and an operator can raise it."""


class PermissionDenied(ProviderError):
    """The credentials are missing, expired or not allowed to do this."""

    retryable = False


class GroupGone(ProviderError):
    """The group itself does not exist, or is being deleted."""

    retryable = False


class OutcomeUnknown(ProviderError):
    """The request may or may not have been carried out: the reply was lost.

    Ask the next listing; do not repeat an increase on account of it.
    """


class GroupHeld(FleetingError):
    """Another process drives the group now; nothing was done. See `fleeting._lock`.

    Attributes:
        id: the group, `GroupInfo.id`.
        holder: the process, for people; empty if it has not said who it is.
    """

    def __init__(self, id: str, holder: str, advice: str = "stop that one first") -> None:
        self.id = id
        self.holder = holder
        who = f" ({holder})" if holder else ""
        super().__init__(f"group {id} is driven by another process now{who}; {advice}")


class InstanceError(FleetingError):
    """One instance cannot do what was asked; the others of the group can.

    Attributes:
        id: the instance.
    """

    def __init__(self, id: str, message: str) -> None:
        self.id = id
        super().__init__(message)


class InstanceGone(InstanceError):
    """The instance does not exist (any more)."""


class InstanceUnhealthy(InstanceError):
    """The instance exists, and the cloud says that it does not work."""


class ConnectorError(FleetingError):
    """What lies between here and the instance failed."""


class NotSupported(ConnectorError):
    """This connection cannot do that, whatever the circumstances."""


class Unreachable(ConnectorError):
    """No connection came about in time; a later try may succeed."""


class AuthenticationFailed(ConnectorError):
    """The instance answered, and refused the credentials."""


class HostKeyMismatch(ConnectorError):
    """The instance showed another key than the one that it must have; nothing was sent to it."""


class ConnectionLost(ConnectorError):
    """An established connection broke; what ran through it has an unknown fate."""


class TransferFailed(ConnectorError):
    """A file could not be copied: it is missing, not permitted, or the disk is full."""
