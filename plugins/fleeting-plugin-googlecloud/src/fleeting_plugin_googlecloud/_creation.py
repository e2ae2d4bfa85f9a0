"""Follows the instances that were requested: their names, and why some do not come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fleeting.errors import ProviderError
from fleeting.types import CreationFailure
from fleeting_plugin_googlecloud._errors import classify
from fleeting_plugin_googlecloud._members import creation_error
from fleeting_plugin_googlecloud._names import instance_names
from fleeting_plugin_googlecloud._requests import list_creation_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fleeting_plugin_googlecloud._api import GoogleApi
    from fleeting_plugin_googlecloud._members import ManagedMember

__all__ = ("CreationLog", "Names")

logger = logging.getLogger("fleeting")

# How many failures and operations are remembered.
REMEMBERED = 200
# More instances than one operation asks for.
MOST_NAMES = 5000

# The group tries once to create such a member, and then drops it.
_ONCE = "CREATING_WITHOUT_RETRIES"


class Names:
    """The names of the instances of the newest operations."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[str, ...]] = {}

    def of(self, base: str, operation: str) -> tuple[str, ...]:
        """Return the names that an operation asked for, or may have asked for.

        An operation of an earlier process is not known, but its names follow from it.
        """
        return self._names.get(operation) or instance_names(base, operation, MOST_NAMES)

    def choose(
        self, base: str, operation: str, count: int, members: Collection[str]
    ) -> tuple[str, ...]:
        """Return the names for an operation: the same as before if it is repeated.

        Args:
            base: the group's base name.
            operation: the identifier of the request.
            count: how many.
            members: names that other members have.
        """
        known = self._names.get(operation)
        if known is None:
            known = instance_names(base, operation, count, members)
            self._remember(operation, known)
        return known

    def replace(
        self, base: str, operation: str, count: int, taken: Collection[str]
    ) -> tuple[str, ...]:
        """Return more names for an operation, because some of the first ones are taken."""
        others = instance_names(base, operation, count, taken)
        self._remember(operation, self._names.get(operation, ()) + others)
        return others

    def _remember(self, operation: str, names: tuple[str, ...]) -> None:
        self._names[operation] = names
        for oldest in list(self._names)[:-REMEMBERED]:
            del self._names[oldest]


class CreationLog:
    """The failures to create since the group was opened.

    Args:
        api: sends the requests.
        members: as listed when the group was opened; their failures belong to earlier requests.
    """

    def __init__(self, api: GoogleApi, members: Mapping[str, ManagedMember]) -> None:
        self._api = api
        self._old = {
            name for name, one in members.items() if creation_error(one, api.where) is not None
        }
        self._failures: dict[str, CreationFailure] = {}
        # Members that are created without retries, as listed last.
        self._tried_once: set[str] = set()

    async def failures(self, members: Mapping[str, ManagedMember]) -> tuple[CreationFailure, ...]:
        """Return the failures, with those that a new listing shows.

        Args:
            members: the new listing.
        """
        for name, member in members.items():
            error = creation_error(member, self._api.where)
            if error is not None and name not in self._old:
                self._failures.setdefault(name, CreationFailure(name, error))
        dropped = sorted(self._tried_once - members.keys())
        self._tried_once = {
            name for name, one in members.items() if one.action == _ONCE and not one.number
        }
        if dropped:
            await self._ask(dropped)
        for oldest in list(self._failures)[:-REMEMBERED]:
            del self._failures[oldest]
        return tuple(self._failures.values())

    async def _ask(self, names: Sequence[str]) -> None:
        """Find out why members that were created without retries have disappeared."""
        try:
            errors = await list_creation_errors(self._api)
        except ProviderError as failure:
            logger.warning("group %s: %s", self._api.where, failure)
            errors = {}
        for name in names:
            code, text = errors.get(name, ("", "Google gives no reason"))
            what = f"instance {name} of group {self._api.where} was not created"
            reason = f"{code}: {text}" if code else text
            error = classify(code, text, what) or ProviderError(f"{what}: {reason}")
            self._failures.setdefault(name, CreationFailure(name, error))
