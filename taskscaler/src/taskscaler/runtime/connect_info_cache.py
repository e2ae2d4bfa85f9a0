"""The connect info of each instance, so that the provider need not be asked each time.

Two things are kept for each instance. The provider's answer is used until its
credentials are about to expire, until the instance is suspended, or until a
connection fails, which may be its fault. The host keys that the instance showed
are kept for its whole life: it must show them again, to the next scaler on the
same store as well.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from taskscaler.core import ConnectRecord, InstanceRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import ConnectInfo
    from taskscaler.core import Record

__all__ = ("ConnectInfoCache",)

# Credentials are not used in the last tenth of their time, but for 30 s of it at most.
MARGIN_SECONDS = 30.0
MARGIN_PART = 0.1


@dataclass(slots=True)
class _Cached:
    """The connect info of one instance.

    Attributes:
        info: the provider's answer; None if the provider must be asked.
        good_until: in monotonic seconds.
        host_keys: that the instance has shown, in OpenSSH format.
        life: distinguishes this machine from a later one of the same id; unique.
        stored: the record in the store; None if there is none.
    """

    info: ConnectInfo | None = None
    good_until: float = float("inf")
    host_keys: tuple[str, ...] = ()
    stored: ConnectRecord | None = None
    life: str = field(default_factory=lambda: secrets.token_hex(8))


class ConnectInfoCache:
    """Connect info by group and instance."""

    def __init__(self) -> None:
        self._cached: dict[tuple[str, str], _Cached] = {}

    def find(self, group: str, id: str) -> ConnectInfo | None:
        """Return how to reach an instance; None if the provider must be asked."""
        cached = self._cached.get((group, id))
        if cached is None or cached.info is None or anyio.current_time() >= cached.good_until:
            return None
        return _with_keys(cached.info, cached.host_keys)

    def keep(self, group: str, id: str, info: ConnectInfo) -> ConnectInfo:
        """Keep the provider's answer; return it with the host keys that are known."""
        cached = self._entry(group, id)
        cached.info, cached.good_until = info, _good_until(info)
        return _with_keys(info, cached.host_keys)

    def keep_host_keys(self, group: str, id: str, host_keys: tuple[str, ...]) -> None:
        """Keep the host keys that an instance showed on a connection."""
        cached = self._entry(group, id)
        cached.host_keys = host_keys or cached.host_keys

    def life(self, group: str, id: str) -> str:
        """Return what distinguishes this machine from a later one of the same id."""
        return self._entry(group, id).life

    def invalidate(self, group: str, id: str) -> None:
        """Ask the provider again before the next connection."""
        cached = self._cached.get((group, id))
        if cached is not None:
            cached.info = None

    def take_stored(self, group: str, id: str) -> ConnectRecord | None:
        """Return, once, the record that the store has of an instance, to be dropped there."""
        cached = self._cached.get((group, id))
        if cached is None:
            return None
        stored, cached.stored = cached.stored, None
        return stored

    def forget(self, group: str, id: str) -> None:
        """Forget an instance that is gone. A later one with the same id is another machine."""
        self._cached.pop((group, id), None)

    def new_record(self, group: str, id: str, incarnation: str | None) -> ConnectRecord | None:
        """Return the record to store now; None if nothing is known or nothing has changed."""
        cached = self._cached.get((group, id))
        if cached is None or cached.info is None:
            return None
        record = ConnectRecord(group, id, incarnation, _with_keys(cached.info, cached.host_keys))
        if record == cached.stored:
            return None
        cached.stored = record
        return record

    def restore(self, records: Sequence[Record]) -> list[ConnectRecord]:
        """Restore what a previous process knew; return the records of unknown instances."""
        known = {(one.group, one.id): one for one in records if isinstance(one, InstanceRecord)}
        stale: list[ConnectRecord] = []
        for record in records:
            if not isinstance(record, ConnectRecord):
                continue
            instance = known.get((record.group, record.id))
            if instance is None or not _may_be_same(instance.incarnation, record.incarnation):
                stale.append(record)
                continue
            # A suspended instance may have been stopped since, and addresses change with that.
            info = None if instance.suspended else record.info
            self._cached[record.group, record.id] = _Cached(
                info, _good_until(record.info), record.info.host_keys, record
            )
        return stale

    def _entry(self, group: str, id: str) -> _Cached:
        return self._cached.setdefault((group, id), _Cached())


def _may_be_same(first: str | None, second: str | None) -> bool:
    """Return whether two incarnations can be one machine. None is not known yet."""
    return first is None or second is None or first == second


def _with_keys(info: ConnectInfo, host_keys: tuple[str, ...]) -> ConnectInfo:
    """Add the host keys that an instance showed, unless the provider knows them itself."""
    return info if info.host_keys or not host_keys else replace(info, host_keys=host_keys)


def _good_until(info: ConnectInfo) -> float:
    """Return until when connect info may be used, in monotonic seconds."""
    if info.expires is None:
        return float("inf")
    left = (info.expires - datetime.now(UTC)).total_seconds()
    return anyio.current_time() + left - min(MARGIN_SECONDS, left * MARGIN_PART)
