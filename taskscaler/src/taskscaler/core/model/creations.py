"""The creation of instances in one group: requests, pauses, cooldown."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fleeting.errors import ProviderError
from taskscaler.core.model.agenda import CHANGED
from taskscaler.core.model.operations import Operation, Operations
from taskscaler.core.model.records import GroupRecord
from taskscaler.core.model.throttle import Backoff, Cooldown
from taskscaler.core.model.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from fleeting.errors import FleetingError
    from fleeting.types import Accepted
    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.settings import Settings

__all__ = ("Creations", "patience")

# Something that takes longer than this part of its timeout does not hold up other groups.
PATIENCE = 0.1

# After so many failures in a row, with no instance ready in between, one at a time is tried.
TRIAL_FAILURES = 2


def patience(timeout: timedelta) -> float:
    """Return for how many seconds something with a timeout may hold up what depends on it."""
    return timeout.total_seconds() * PATIENCE


class Creations:
    """The requests for instances of one group, and the pauses after failures to create.

    Stores the operations and the pauses, because a restart must forget neither what
    may still come nor what is not to be tried again at once.

    Args:
        group: the id of the group.
        agenda: learns of answers and failures.

    Attributes:
        operations: requests whose instances have not all been seen.
        requested_at: when instances were last requested, in monotonic seconds.
        pending: instances that the cloud intends to create and that have no id yet.
        backoff: the pause after failures.
        cooldown: until when the other groups come first, because it has no capacity.
        doubted: whether what it accepted last never became ready, so that the other groups
            come first until something does.
        retry_at: when a doubted group may be tried again, in monotonic seconds.
        returned_at: when it was last asked to serve again instead of the other groups.
        spent: how many used-up instances have gone since instances were last requested.
    """

    def __init__(self, group: str, agenda: Agenda) -> None:
        self.operations = Operations()
        self.requested_at = float("-inf")
        self.pending = 0
        self.backoff = Backoff()
        self.cooldown = Cooldown()
        self.doubted = False
        self.retry_at = 0.0
        self.returned_at = float("-inf")
        self.spent = 0
        self._delivered_at = float("-inf")
        self._group = group
        self._agenda = agenda
        # Since when `pending` has not become less, in monotonic seconds.
        self._pending_since = 0.0
        # The pauses as they were stored last.
        self._stored = self._pauses()

    @property
    def unseen(self) -> int:
        """Return how many instances are expected that no listing has shown."""
        return max(self.operations.outstanding, self.pending)

    @property
    def possible(self) -> int:
        """Return how many instances may come that no listing has shown, unlikely ones too."""
        return max(self.operations.outstanding + self.operations.unlikely, self.pending)

    @property
    def on_trial(self) -> bool:
        """Return whether one instance at a time is enough, because one after the other failed."""
        return self.doubted and self.backoff.failures >= TRIAL_FAILURES

    @property
    def trouble(self) -> str:
        """Return the last failure without a later success, or an empty string."""
        return self.backoff.reason or self.cooldown.reason

    def overdue(self, now: float, settings: Settings) -> int:
        """Return how many of the unseen instances should have been seen by now.

        Args:
            now: monotonic seconds.
            settings: with the creation timeout.
        """
        if not self.unseen:  # As nearly always.
            return 0
        limit = patience(settings.creation_timeout)
        overdue = self.operations.overdue(now, limit)
        # The cloud intends to create more than this process has requested.
        more = self.pending - self.operations.outstanding
        if more > 0 and self._pending_since + limit <= now:
            overdue += more
        return min(overdue, self.unseen)

    def owed(self, now: float, settings: Settings) -> int:
        """Return how many of the overdue instances the group itself is not asked for again.

        If the answer to a request was lost, perhaps nothing was created. So the group may be
        asked again after the wait, unless the cloud intends to create them.
        """
        overdue = self.overdue(now, settings)
        lost = self.operations.lost(now, patience(settings.creation_timeout))
        return max(overdue - lost, min(self.pending, overdue))

    def next_at(self, now: float, settings: Settings) -> float:
        """Return when more instances will be overdue, in monotonic seconds."""
        return self.operations.overdue_at(now, patience(settings.creation_timeout))

    def reluctance(self, now: float, settings: Settings) -> tuple[bool, bool]:
        """Return why the other groups come first: the larger, the later this one comes.

        One without capacity comes later than one that does not deliver.
        """
        return self.cooldown.until > now, self.doubted or self.overdue(now, settings) > 0

    # Requests.

    def request(self, operation: Operation, now: float, out: Outbox) -> None:
        """Open an operation. It is stored before the provider is asked."""
        self.operations.add(operation)
        self.requested_at = now
        self.spent = 0
        self._store(operation, out)

    def restore(self, operation: Operation) -> None:
        """Open an operation of a previous process."""
        self.operations.add(operation)

    def told(self, id: str, count: int | None, out: Outbox) -> None:
        """Record what came of an operation of a previous process whose answer was lost.

        Args:
            id: the operation's.
            count: how many instances it creates in total; None if that is not known.
            out: takes what is to be stored.
        """
        left = self.operations.left(id, count)
        self._store(self.operations.settle(id, left, told=True), out)
        self._agenda.news |= CHANGED

    def settle(
        self,
        id: str,
        accepted: Accepted,
        names: Iterable[str],
        now: float,
        settings: Settings,
        out: Outbox,
        *,
        unknown: bool,
        told: bool = False,
    ) -> None:
        """Record the answer to a request.

        Args:
            id: the operation's.
            accepted: the answer.
            names: ids from the answer that no listing has shown.
            now: monotonic seconds.
            settings: with the pauses.
            out: takes what is to be stored.
            unknown: whether the answer was lost, so that all instances may still come.
            told: whether the answer was lost, and the provider told later.
        """
        asked = self.operations.expected(id)
        count = None if unknown else accepted.count
        operation = self.operations.settle(id, count, names, told=told)
        self._store(operation, out)
        self._agenda.news |= CHANGED
        if accepted.error is not None:
            self.failed(str(accepted.error), now, settings, accepted.error)
        elif operation.expected < asked:
            wanted = counted(asked, "instance")
            reason = f"the provider accepted {operation.expected} of {wanted} and gave no reason"
            self.failed(reason, now, settings)
        elif not unknown:
            self.cooldown.end()

    def claim(self, id: str, out: Outbox, *, likely: bool = False) -> bool:
        """Count a new instance for an operation; return False if none can have created it.

        Args:
            id: the id of the instance.
            out: takes what is to be stored.
            likely: whether it is only probably the one that was requested.
        """
        operation = self.operations.claim(id, likely=likely)
        if operation is None:
            return False
        self._store(operation, out)
        return True

    def lose_one(self, out: Outbox) -> None:
        """Expect one accepted instance no longer, because the cloud reported a failure."""
        for operation in self.operations.fail(1):
            self._store(operation, out)

    def write_off(self, before: float, out: Outbox) -> list[int]:
        """Expect instances no longer that were accepted before a moment and never seen.

        Returns:
            How many instances each request has lost.
        """
        lost = self.operations.write_off(before, self.pending)
        for operation in lost:
            self._store(operation, out)
        return [count for count in lost.values() if count]

    def expect(self, pending: int, now: float) -> None:
        """Record how many instances without an id the cloud intends to create."""
        if not self.pending or pending < self.pending:
            self._pending_since = now
        self.pending = pending

    # Success and failure.

    def succeeded(self, now: float) -> None:
        """A new instance became ready: forget the failures."""
        self._delivered_at = now
        self.doubted = False
        self.backoff.succeeded(now)

    def undelivered(
        self,
        reason: str,
        now: float,
        settings: Settings,
        *,
        since: float,
        error: FleetingError | None = None,
    ) -> None:
        """Pause, because something that was accepted never became ready.

        If nothing else became ready meanwhile, the group is doubted: the other groups
        come first, and it is not tried again before its cooldown is over.

        Args:
            reason: human-readable.
            now: monotonic seconds.
            settings: with the pauses.
            since: when it was requested or first seen, in monotonic seconds.
            error: what the cloud said, if it did.
        """
        if self._delivered_at <= since:
            self.doubted = True
            self.retry_at = now + settings.cooldown.total_seconds()
        self.failed(reason, now, settings, error)

    def failed(
        self, reason: str, now: float, settings: Settings, error: FleetingError | None = None
    ) -> None:
        """Pause, because something did not become an instance.

        The class of the error decides how. A failure that only the operator can fix is
        not retried before the longest pause is over, and a group without capacity or
        quota is passed over for a while.

        Args:
            reason: human-readable.
            now: monotonic seconds.
            settings: with the pauses.
            error: what the cloud answered, if it did.
        """
        retry_after = None
        if isinstance(error, ProviderError):
            retry_after = error.retry_after
            if not error.retryable:
                retry_after = max(retry_after or settings.backoff, settings.backoff_limit)
            self.cooldown.failed(now, error, settings.cooldown)
        self._agenda.news |= CHANGED
        self.backoff.failed(
            now,
            reason,
            first=settings.backoff,
            limit=settings.backoff_limit,
            retry_after=retry_after,
        )

    def instance_gone(self, *, used_up: bool) -> None:
        """An instance is gone, and with it its share of the quota is free again."""
        self.spent += used_up
        if self.cooldown.quota:
            self.cooldown.end()

    # The stored records.

    def store_pauses(self, now: Now, out: Outbox) -> None:
        """Store the pauses if they have changed since they were stored last."""
        backoff, cooldown = self.backoff, self.cooldown
        pauses = self._pauses()
        if pauses == self._stored:
            return
        self._stored = pauses
        record = GroupRecord(
            self._group,
            backoff.failures,
            _wall(backoff.until, now),
            _wall(cooldown.until, now),
            self.trouble,
            cooldown.quota,
            _wall(self.retry_at, now) if self.doubted else None,
        )
        if backoff.failures or cooldown.reason or self.doubted:
            out.put(record)
        else:
            out.drop(record.key)

    def restore_pauses(self, record: GroupRecord, now: Now, settings: Settings) -> None:
        """Continue the pauses of a previous process.

        A wall clock that jumped meanwhile makes no pause longer than it can be.
        """
        paused = min(record.paused_until - now.wall, settings.backoff_limit)
        passed_over = min(record.passed_over_until - now.wall, settings.cooldown)
        backoff, cooldown = self.backoff, self.cooldown
        backoff.failures, backoff.reason = record.failures, record.reason
        backoff.until = now.monotonic + max(0.0, paused.total_seconds())
        if passed_over > timedelta(0):
            cooldown.until = now.monotonic + passed_over.total_seconds()
            cooldown.reason = record.reason
            cooldown.quota = record.quota
        if record.doubted_until is not None:
            self.doubted = True
            left = min(record.doubted_until - now.wall, settings.cooldown)
            self.retry_at = now.monotonic + max(0.0, left.total_seconds())
        self._stored = self._pauses()

    def _pauses(self) -> tuple[object, ...]:
        backoff, cooldown = self.backoff, self.cooldown
        doubt = self.retry_at if self.doubted else None
        return backoff.failures, backoff.until, cooldown.until, cooldown.quota, doubt

    def _store(self, operation: Operation, out: Outbox) -> None:
        """Store what is left of an operation, or drop the record if nothing is."""
        record = operation.record(self._group)
        if self.operations.is_open(operation):
            out.put(record)
        else:
            out.drop(record.key)


def _wall(monotonic: float, now: Now) -> datetime:
    """Return a moment as wall time, or now if it has passed."""
    return now.wall + timedelta(seconds=max(0.0, monotonic - now.monotonic))
