"""What is known of the ways to the instances, so that a cloud need not be asked each time.

Of each instance two things are kept. What its provider said is good until its
credentials are about to expire, until the instance is suspended, or until a
connection failed, which may be because of it. The host keys that it showed are
good for its whole life, so that it must show them again, also to the scaler's
next life.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from taskscaler.core import ConnectRecord, InstanceRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import ConnectInfo
    from taskscaler.core import Record

__all__ = ("Contacts",)

# Credentials are not used in the last tenth of their time, which is at most this long.
MARGIN_SECONDS = 30.0
MARGIN_PART = 0.1


@dataclass(slots=True)
class _Contact:
    """What is known of one instance.

    Attributes:
        info: as the provider gave it; None if it is to be asked anew.
        good_until: in monotonic seconds.
        host_keys: that the instance has shown, in OpenSSH format.
    """

    info: ConnectInfo | None = None
    good_until: float = float("inf")
    host_keys: tuple[str, ...] = ()


class Contacts:
    """The ways to the instances, by group and id."""

    def __init__(self) -> None:
        self._contacts: dict[tuple[str, str], _Contact] = {}

    def find(self, group: str, id: str) -> ConnectInfo | None:
        """Return how to reach an instance; None if the provider is to be asked."""
        contact = self._contacts.get((group, id))
        if contact is None or contact.info is None:
            return None
        if anyio.current_time() >= contact.good_until:
            return None
        return _with_keys(contact.info, contact.host_keys)

    def keep(self, group: str, id: str, info: ConnectInfo) -> ConnectInfo:
        """Remember what the provider said; return it with the host keys that are known."""
        contact = self._contacts.setdefault((group, id), _Contact())
        contact.info, contact.good_until = info, _good_until(info)
        return _with_keys(info, contact.host_keys)

    def see(self, group: str, id: str, host_keys: tuple[str, ...]) -> None:
        """Remember the host keys of a connection that came about."""
        contact = self._contacts.setdefault((group, id), _Contact())
        contact.host_keys = host_keys or contact.host_keys

    def doubt(self, group: str, id: str) -> None:
        """Ask the provider anew before the next connection."""
        contact = self._contacts.get((group, id))
        if contact is not None:
            contact.info = None

    def forget(self, group: str, id: str) -> None:
        """Forget everything: the instance is gone, and a later one of its id is another one."""
        self._contacts.pop((group, id), None)

    def record(self, group: str, id: str, incarnation: str | None) -> ConnectRecord | None:
        """Return what is to survive a restart; None if nothing is known."""
        contact = self._contacts.get((group, id))
        if contact is None or contact.info is None:
            return None
        return ConnectRecord(group, id, incarnation, _with_keys(contact.info, contact.host_keys))

    def restore(self, records: Sequence[Record]) -> tuple[list[ConnectRecord], list[ConnectRecord]]:
        """Begin with what an earlier life of the scaler knew.

        Returns:
            The records that are of use, and those whose instances nobody knows any more.
        """
        known = {(one.group, one.id): one for one in records if isinstance(one, InstanceRecord)}
        used: list[ConnectRecord] = []
        stale: list[ConnectRecord] = []
        for record in records:
            if not isinstance(record, ConnectRecord):
                continue
            instance = known.get((record.group, record.id))
            if instance is None or not _same(instance.incarnation, record.incarnation):
                stale.append(record)
                continue
            used.append(record)
            contact = _Contact(record.info, _good_until(record.info), record.info.host_keys)
            self._contacts[record.group, record.id] = contact
            if instance.suspended:
                # It may have been stopped since, and addresses change with that.
                contact.info = None
        return used, stale


def _same(first: str | None, second: str | None) -> bool:
    """Return whether two incarnations can be of one machine: None is not yet known."""
    return first is None or second is None or first == second


def _with_keys(info: ConnectInfo, host_keys: tuple[str, ...]) -> ConnectInfo:
    """Return it with the host keys that were seen, unless the provider knows them itself."""
    return info if info.host_keys or not host_keys else replace(info, host_keys=host_keys)


def _good_until(info: ConnectInfo) -> float:
    """Return until when it may be used, in monotonic seconds."""
    if info.expires is None:
        return float("inf")
    left = (info.expires - datetime.now(UTC)).total_seconds()
    return anyio.current_time() + left - min(MARGIN_SECONDS, left * MARGIN_PART)
