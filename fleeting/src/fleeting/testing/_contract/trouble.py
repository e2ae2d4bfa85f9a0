"""Tests of what a provider makes of the faults of a cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting.errors import (
    ConfigError,
    FleetingError,
    GroupGone,
    InstanceError,
    OutcomeUnknown,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from fleeting.testing._contract.base import CheckProvider, ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, new_operation, present
from fleeting.testing._contract.faults import Fault
from fleeting.testing._contract.promises import Promise, shows
from fleeting.testing._contract.resources import Resources
from fleeting.types import Accepted, Listing, Severity, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fleeting.testing._contract.examination import Examination

__all__ = ("TroubleTests",)

# The class of the error that says what each fault is.
CLASSES: dict[Fault, type[ProviderError]] = {
    Fault.THROTTLED: Throttled,
    Fault.DENIED: PermissionDenied,
    Fault.GROUP_GONE: GroupGone,
    Fault.UNAVAILABLE: ProviderError,
    Fault.GARBLED: ProviderError,
    Fault.CUT: ProviderError,
    Fault.QUOTA: QuotaExceeded,
    Fault.CAPACITY: OutOfCapacity,
}
# These say nothing about the future, and a client may repeat such a request by itself.
PASSING = (Fault.UNAVAILABLE, Fault.GARBLED, Fault.CUT)
# After these a request may have been carried out, as far as the provider can know.
UNCERTAIN = {Fault.GARBLED, Fault.CUT}
OF_ALL_CALLS = [*PASSING, Fault.THROTTLED, Fault.DENIED]


def _name(kind: Fault) -> str:
    return kind.value


class TroubleTests(ContractBase):
    """The errors that faults of the cloud lead to."""

    @shows(Promise.ERRORS, adds=2)
    @pytest.mark.parametrize("kind", OF_ALL_CALLS, ids=_name)
    async def test_error_names_the_cause(self, open_group: OpenGroup, kind: Fault) -> None:
        """A request that fails leads to an error of the right class, whatever it asks for."""
        async with self.examined(open_group, adds=2) as examination:
            group = examination.group
            before = present(await examination.listing())
            (id,) = await examination.grow(1)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "update": group.update,
                "heartbeat": lambda: group.heartbeat(id),
                "connect_info": lambda: group.connect_info(id),
                "increase": lambda: group.increase(1, new_operation()),
                "decrease": lambda: group.decrease([id]),
            }
            for name, call in calls.items():
                await self.cause(group, kind)
                result = await _result(examination, call, name)
                await self.fault(group, Fault.NONE)
                examination.note_change()
                self._judge(name, kind, result, id)
            if kind not in PASSING:
                await examination.stays({*before, id}, "a refused increase added an instance")

    def _judge(self, name: str, kind: Fault, result: object, id: str) -> None:
        """Check what a call returned or raised when its request failed."""
        error = result.error if isinstance(result, Accepted) else result
        where = f"{name}, whose request failed ({kind.value}),"
        if isinstance(result, Listing):
            expect(
                id in present(result),
                f"{where} returned a listing without {id}, so its jobs would be lost; raise a "
                "ProviderError",
            )
        if not isinstance(error, Exception):
            # A call may need no request, and a client may repeat one after a passing fault.
            changes = name in {"update", "increase"} or (name == "decrease" and kind not in PASSING)
            expect(
                kind in PASSING or not changes,
                f"{where} returned as if nothing had happened; raise {CLASSES[kind].__name__}, "
                "and do not wait or repeat: the caller does that",
            )
            return
        found = type(error).__name__
        expect(
            not isinstance(error, InstanceError),
            f"{where} raised {found}, which blames instance {id} and ends its jobs; raise "
            f"{CLASSES[kind].__name__}",
        )
        wanted = CLASSES[kind]
        if name == "increase" and kind in UNCERTAIN:
            wanted = OutcomeUnknown  # No one knows whether the request was carried out.
        expect(
            isinstance(error, wanted),
            f"{where} raised {found} instead of {wanted.__name__}: {error}",
        )
        expect(
            kind not in PASSING or getattr(error, "retryable", True),
            f"{where} raised {found}, which is not retryable, so callers would give up: {error}",
        )
        asked = getattr(error, "retry_after", None)
        expect(
            kind is not Fault.THROTTLED or self.retry_after in {None, asked},
            f"the cloud asks to wait {self.retry_after}, but {name} raised Throttled with "
            f"retry_after={asked}",
        )

    @shows(Promise.ERRORS, adds=0)
    @pytest.mark.parametrize("name", ["update", "increase"])
    async def test_group_that_is_gone(self, open_group: OpenGroup, name: str) -> None:
        """If the cloud says that the group does not exist, the error is `GroupGone`."""
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            await self.cause(group, Fault.GROUP_GONE)
            call = group.update if name == "update" else lambda: group.increase(1, new_operation())
            result = await _result(examination, call, name)
            await self.fault(group, Fault.NONE)
            expect(
                isinstance(result, GroupGone),
                f"{name} of a group that is gone: {result!r} instead of GroupGone",
            )

    @shows(Promise.ERRORS, adds=2)
    @pytest.mark.parametrize("kind", [Fault.QUOTA, Fault.CAPACITY], ids=_name)
    async def test_creation_that_is_refused(self, open_group: OpenGroup, kind: Fault) -> None:
        """A refused creation has an error of the right class, and what was accepted comes."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())

            async def increase() -> Accepted:
                return await examination.group.increase(count, new_operation())

            for count in (1, 2):
                await self.cause(examination.group, kind)
                result = await _result(examination, increase, "increase")
                await self.fault(examination.group, Fault.NONE)
                examination.note_change()
                error = result.error if isinstance(result, Accepted) else result
                expect(
                    isinstance(error, CLASSES[kind]),
                    f"increase({count}), of which a part was refused ({kind.value}), has "
                    f"{type(error).__name__} instead of {CLASSES[kind].__name__}",
                )
                accepted = result.count if isinstance(result, Accepted) else 0
                expect(accepted < count, f"increase({count}) accepted what the cloud refused")
                new = await examination.arrivals(before, accepted) if accepted else []
                await examination.stays({*before, *new}, "more came than increase accepted")
                await examination.remove_new(before)

    @shows(Promise.ERRORS, adds=2)
    async def test_removal_that_is_refused(self, open_group: OpenGroup) -> None:
        """An instance that cannot be removed now is not accepted, and can be removed later."""
        async with self.examined(open_group, adds=2) as examination:
            group = examination.group
            ids = await examination.grow(2)
            await self.cause(group, Fault.REMOVAL_REFUSED)
            result = await _result(examination, lambda: group.decrease(ids), "decrease")
            await self.fault(group, Fault.NONE)
            accepted = set(result.ids) if isinstance(result, Accepted) else set[str]()
            error = result.error if isinstance(result, Accepted) else result
            expect(
                isinstance(error, ProviderError) and accepted != set(ids),
                f"the cloud refused to remove one of {ids}, but decrease returned {result!r}; "
                "leave it out of the accepted ids, and set the error",
            )
            await examination.until(
                lambda listing: not accepted & _alive(listing), f"{accepted} were not removed"
            )
            kept = set(ids) - accepted
            expect(
                kept <= present(await examination.listing()),
                f"{kept} were not accepted, but are not listed",
            )
            await examination.remove(*kept)

    @shows(Promise.LOST_REPLIES, adds=1)
    async def test_lost_reply_of_an_increase(self, open_group: OpenGroup) -> None:
        """If the reply to a creation is lost, its outcome is unknown, and it may be told later."""
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            before = present(await examination.listing())
            operation = new_operation()
            await self.cause(group, Fault.REPLY_LOST)
            result = await _result(examination, lambda: group.increase(1, operation), "increase")
            await self.fault(group, Fault.NONE)
            examination.note_change()
            expect(
                isinstance(result, OutcomeUnknown)
                or (isinstance(result, Accepted) and result.count == 1),
                f"the reply to a creation was lost, and increase has {result!r}; raise "
                "OutcomeUnknown, or callers create and pay an instance twice",
            )
            told = await examination.call(group.outcome, operation)
            expect(told in {None, 1}, f"1 instance was created, but outcome tells {told}")
            await examination.arrivals(before, 1)

    @shows(Promise.LOST_REPLIES, adds=1)
    async def test_lost_reply_of_a_decrease(self, open_group: OpenGroup) -> None:
        """If the reply to a removal is lost, it is not accepted, and can be repeated."""
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            (id,) = await examination.grow(1)
            await self.cause(group, Fault.REPLY_LOST)
            result = await _result(examination, lambda: group.decrease([id]), "decrease")
            await self.fault(group, Fault.NONE)
            expect(
                isinstance(result, ProviderError | Accepted),
                f"the reply to a removal was lost, and decrease raised {result!r}",
            )
            await examination.remove(id)

    @shows(Promise.PAGINATION, adds=0, affordable=True)
    async def test_page_that_fails(self, open_group: OpenGroup) -> None:
        """If a page of a listing fails, the listing fails as a whole."""
        if not self.page_size:
            pytest.skip("to show it, set `page_size` to the size of the pages of your fake")
        count = self.page_size + 1
        async with self.examined(open_group, adds=count) as examination:
            new = set(await examination.grow(count))
            await self.cause(examination.group, Fault.PAGE_FAILS)
            result = await _result(examination, examination.group.update, "update")
            await self.fault(examination.group, Fault.NONE)
            if isinstance(result, Listing):
                listing = await examination.listing()
                missing = new - {one.id for one in result.instances}
                expect(
                    not missing or missing - present(listing),
                    f"a page failed, and update returned a part: {missing} are missing and would "
                    "count as gone; raise a ProviderError",
                )

    @shows(Promise.ERRORS, adds=0)
    @pytest.mark.parametrize("kind", OF_ALL_CALLS, ids=_name)
    async def test_opening_in_trouble(self, open_group: OpenGroup, kind: Fault) -> None:
        """An opening whose request fails raises an error that says why, and leaves nothing."""
        async with self.opening(open_group) as group:
            await self.listed(group)
        resources = await Resources.settled()
        await self.cause(None, kind)
        try:
            async with open_group():
                pass
        except (ConfigError, ProviderError) as error:
            good = (CLASSES[kind], ConfigError) if kind is Fault.DENIED else CLASSES[kind]
            expect(
                isinstance(error, good),
                f"opening failed ({kind.value}) with {type(error).__name__} instead of "
                f"{CLASSES[kind].__name__}",
            )
        except Exception as error:
            raise AssertionError(
                f"opening, whose request failed ({kind.value}), raised {type(error).__name__}, "
                f"which is neither a ProviderError nor a ConfigError: {error}"
            ) from error
        finally:
            await self.fault(None, Fault.NONE)
        await resources.restored(self.call_timeout, f"an opening that failed ({kind.value})")

    @shows(Promise.CHECKING, adds=0)
    @pytest.mark.parametrize("kind", [Fault.CUT, Fault.DENIED, Fault.GARBLED], ids=_name)
    async def test_check_in_trouble(
        self, open_group: OpenGroup, check_provider: CheckProvider | None, kind: Fault
    ) -> None:
        """The cause of a failed opening is a finding of the check, and not an exception."""
        if check_provider is None:
            pytest.skip("the fixture check_provider is not overridden")
        async with self.opening(open_group):
            pass
        resources = await Resources.settled()
        await self.cause(None, kind)
        try:
            findings = await check_provider()
        except Exception as error:
            raise AssertionError(
                f"check raised {type(error).__name__} when its request failed ({kind.value}); "
                f"return a finding: {error}"
            ) from error
        finally:
            await self.fault(None, Fault.NONE)
        expect(
            kind is not Fault.DENIED or any(one.severity is Severity.ERROR for one in findings),
            f"the credentials are refused, but check found no error: {findings}",
        )
        await resources.restored(self.call_timeout, f"a check that failed ({kind.value})")


async def _result(
    examination: Examination, call: Callable[[], Awaitable[object]], name: str
) -> object:
    """Return what a call returned, or the error that it raised."""

    async def named() -> object:
        return await call()

    named.__name__ = name
    try:
        return await examination.once(named)
    except FleetingError as error:
        return error


def _alive(listing: Listing) -> set[str]:
    """Return the ids of the instances that are not being removed."""
    return {one.id for one in listing.instances if one.state is not State.DELETING}
