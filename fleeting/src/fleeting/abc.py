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
from typing import TYPE_CHECKING, ClassVar

from fleeting._connections import (
    AsyncOutput,
    Connection,
    Connector,
    Output,
    Process,
    Terminal,
)
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from fleeting.types import (
        Accepted,
        Capability,
        ConnectInfo,
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
    "Terminal",
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
