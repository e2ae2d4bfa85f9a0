"""The contracts that a plugin implements: instance groups, providers, connections.

These docstrings are the specification. For each method they specify its meaning,
what it raises, who retries, and what happens on cancellation.
`fleeting.testing.InstanceGroupContract` checks an implementation against them.

General rules, for every method of every class here:

* It is called on one event loop. Several calls can be in progress at once.
* It can be cancelled at any await. It then raises the cancellation, and leaves no
  task, socket or file open. Requests that the cloud has already accepted stay
  accepted; the next listing shows them.
* It sets no deadline, does not retry, and does not log success. Its caller does
  that in one place for all implementations. A client library's own quick retry of
  a broken connection is allowed.
* It raises only `FleetingError`s. Any other exception is a bug of the implementation.
* No exception message contains a secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from typing_extensions import TypeVar

from fleeting._connections import Connection, Connector
from fleeting._copy_budget import CopyBudget
from fleeting._processes import AsyncOutput, Output, Process, Terminal
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

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
    "CopyBudget",
    "InstanceGroup",
    "Output",
    "Process",
    "Provider",
    "Terminal",
)


class InstanceGroup(ABC):
    """A group of similar instances whose size can be changed.

    `Provider.open` yields an open group and closes it on exit. One scaler drives a group at a
    time. The group's state is always read from its listing and never derived from
    what this object remembers, because other programs and the cloud change the
    group too.

    Clouds differ in four ways that a caller does not see:

    * *Lag.* A listing can be behind the cloud's own answers, and those outweigh
      it: an instance whose removal was accepted is `DELETING` although it is still shown as
      running. An instance that was accepted and is not shown yet counts
      as `pending` if the cloud tells the size that it intends; otherwise leave it out, and
      the caller waits for it. Never guess a state to hide the lag.
    * *One call for each instance.* Send the calls concurrently, at most about ten at a time,
      and let none of them stop the others. `decrease`, `suspend` and `resume` return the ids
      that were accepted, with the first error; an id whose reply was lost is left out, and
      the caller repeats it. `increase` raises `OutcomeUnknown` if any reply was lost.
    * *Requests that can never succeed.* A wrong image or a parameter that the cloud refuses
      has no class of its own, because callers treat all of them alike. Raise a subclass of
      `ProviderError` with `retryable = False`, and say what has to be corrected where. The
      caller shows it, and pauses for as long as it ever does. `InstanceError` is for a
      fault of one instance: a refused permission or parameter is the group's fault, even
      if the request was about an instance.
    * *Ids.* A cloud may use an id again, see `update`, or replace an instance by another one
      without being asked, see `Instance.replaces`.

    Attributes:
        info: describes the group; constant while the group is open.
    """

    info: GroupInfo

    @abstractmethod
    async def update(self) -> Listing:
        """List every instance of the group once, and count those that have no id yet.

        An instance that is left out counts as missing, and as gone after the scaler's
        `missed_updates` (by default 2) such listings in a row. Do not leave one out
        because a detail about it is unavailable: report it as `UNKNOWN`, and likewise
        if its state is one that the implementation does not know. If the cloud uses an id
        again for a later machine, report an `incarnation`; without one, a machine whose
        removal the cloud never confirmed is taken for the same one when its id comes back.
        An unhealthy instance is a value in the listing and never an exception, so that it
        does not hide the others. An instance that `decrease` accepted is reported as
        `DELETING`, or not at all.

        Reads, and only reads: any process may call it at any time, also while another one
        drives the group, and twice is the same as once. It takes nothing away from other
        readers. `reconcile` takes the steps that follow from a listing. Costs one API call
        if at all possible, whatever the size of the group.

        A failure to create stays in the listings as long as the implementation likes, for
        one listing at least. Report those of requests since the group was opened, and no
        earlier ones: they belong to requests of another process.

        Raises:
            ProviderError: the whole listing is unavailable. The caller keeps the
                previous one and tries again.
        """

    async def reconcile(self, listing: Listing) -> None:
        """Take the steps that follow from a listing; by default there are none.

        Some changes take several requests to the cloud, such as suspending an instance, or
        giving up instances whose creation failed. `suspend` takes the first step; this method
        takes each of the others as soon as a listing shows that the previous one is done.

        Only the process that drives the group calls it, after each listing, and one call at
        a time. Between two steps that process can be killed, and another one continues. So
        base the next step on what the cloud shows, and keep in the cloud what it has to know,
        for example as a tag of the instance. Idempotent; does not wait for a step to finish.

        Args:
            listing: the newest one.

        Raises:
            ProviderError: not every step was taken. The caller logs it; the call after the
                next listing takes the others.
        """
        del listing

    @abstractmethod
    async def increase(self, count: int, operation: str) -> Accepted:
        """Request `count` more instances.

        Returns as soon as the request is accepted, and does not wait for the
        instances. They appear in a later `update`, possibly counted as `pending` first.

        Args:
            count: how many; at least 1.
            operation: a unique identifier of this request. If the cloud supports
                idempotency tokens, pass it on, so that repeating the call with the same
                operation adds nothing. Otherwise ignore it: the caller never repeats
                an increase with an unknown outcome.

        Returns:
            How many were accepted, from 0 to `count`. If only some were accepted, that
            is a value with `error` set, not an exception.

        Raises:
            OutcomeUnknown: the reply was lost; any number of instances may be created.
            ProviderError: nothing was accepted; the class says why.
        """

    async def outcome(self, operation: str) -> int | None:
        """Return how many instances an increase creates whose reply was lost; None if unknown.

        Optional. Called once after an `increase` that raised `OutcomeUnknown` or did not
        end in time, by the same object and before the next increase; and once after a
        restart for an increase of a previous process that was not answered, by another
        object. Without an answer the caller waits a while for all instances before it
        requests others in their place, so implement this if the cloud can tell, for example
        by an idempotency token, by its list of operations, or by the size that it intends
        the group to have. Answer None rather than guess. Changes nothing.

        Args:
            operation: the identifier of the request.

        Raises:
            ProviderError: the cloud did not answer, which is the same as None.
        """
        del operation
        return None

    @abstractmethod
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        """Remove these instances in whatever state they are, and reduce the group's size.

        Idempotent: an id that is gone, is being removed or never existed counts as
        accepted. The group must not replace removed instances. An empty sequence
        does nothing. Does not wait for the removal to finish.

        Args:
            ids: as in a listing, present or past.

        Returns:
            The accepted ids. If some were not accepted, `error` says why, and the
            caller tries again later.

        Raises:
            OutcomeUnknown: the reply was lost; the caller repeats the call.
            ProviderError: nothing was accepted.
        """

    @abstractmethod
    async def connect_info(self, id: str) -> ConnectInfo:
        """Return how to connect to a running instance, with credentials that are valid now.

        The caller applies the operator's settings (`GroupSettings.connector`) to the
        result; the implementation reads them only to provision credentials. May
        provision credentials as a side effect. Called again before `expires` (in the
        last tenth of the time until then, at most 30 seconds early), after a failed
        connection, and after a suspension.

        Raises:
            InstanceGone: the instance does not exist.
            InstanceUnhealthy: it exists but cannot be reached in its present state.
            ProviderError: the cloud did not answer; the caller tries again.
        """

    @abstractmethod
    async def heartbeat(self, id: str) -> None:
        """Return if the cloud considers the instance healthy. Cheap, and does not use SSH.

        Raises:
            InstanceGone: the instance does not exist.
            InstanceUnhealthy: it is known not to work.
            ProviderError: the cloud did not answer, which says nothing about the instance.
        """

    async def suspend(self, ids: Sequence[str]) -> Accepted:
        """Stop these instances so that they cost less and can be resumed later.

        Called only with `Capability.SUSPEND`. Idempotent; partial success as in
        `decrease`. A suspended instance stays in the listing. If this takes several steps,
        `reconcile` takes those after the first.

        Raises:
            NotSupported: the group does not have the capability.
            ProviderError: nothing was accepted.
        """
        raise NotSupported(f"group {self.info.id} does not support suspend ({len(ids)} instances)")

    async def resume(self, ids: Sequence[str]) -> Accepted:
        """Start suspended instances again; same contract as `suspend`.

        Raises:
            NotSupported: the group does not have the capability.
            ProviderError: nothing was accepted.
        """
        raise NotSupported(f"group {self.info.id} does not support resume ({len(ids)} instances)")

    def watch(self) -> AsyncIterator[Notice]:
        """Yield interruption notices as soon as they are announced, until cancelled.

        Called only with `Capability.WATCH`. A notice can arrive twice, late or not at
        all: the listing remains authoritative.

        Raises:
            NotSupported: the group does not have the capability.
            ProviderError: the source of notices failed; the caller starts it again.
        """
        raise NotSupported(f"group {self.info.id} does not announce interruptions")


ConfigT = TypeVar("ConfigT", default=Any)


class Provider(ABC, Generic[ConfigT]):
    """Opens groups of one kind; a plugin registers one provider.

    `Provider[Config]` is a provider whose `config_type` is `Config`, for type checkers.

    It is created without arguments when the plugin is loaded, and does nothing until
    it is called. Import heavy libraries in `open` or `check`.

    Attributes:
        name: the name of its entry point, as in `plugin = "name"`.
        config_type: a frozen `msgspec.Struct` with `forbid_unknown_fields=True`;
            `[plugin_config]` is decoded into it before anything is opened.
        capabilities: the optional capabilities that its groups may have, shown to operators
            who choose a provider. `GroupInfo.capabilities` has those of an open group.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]  # A class variable cannot have the type of a parameter.
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @abstractmethod
    def open(
        self, config: ConfigT, settings: GroupSettings
    ) -> AbstractAsyncContextManager[InstanceGroup]:
        """Return a context manager in which the group is open.

        Entering authenticates, checks that the group exists, and sets `info`.
        Leaving closes the connections, tasks and files of this object in reverse
        order, even after an exception or a cancellation. It does not touch any
        instance: the caller decides whether to remove instances.

        Args:
            config: an instance of `config_type`.
            settings: the scaler's settings that concern the provider.

        Raises:
            ConfigError: on entering; the operator must change something.
            ProviderError: on entering; the cloud refused or did not answer.
        """

    @abstractmethod
    async def check(self, config: ConfigT, settings: GroupSettings) -> Sequence[Finding]:
        """Look for problems in advance: credentials, quotas, settings of the group.

        Starts and changes nothing. Every cause that makes `open` fail is a finding here.

        Args:
            config: an instance of `config_type`.
            settings: the scaler's settings that concern the provider.

        Returns:
            The findings, most severe first; empty if there are none.
        """
