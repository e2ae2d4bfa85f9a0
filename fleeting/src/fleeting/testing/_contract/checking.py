"""Tests of `Provider.check`."""

from __future__ import annotations

import pytest

from fleeting.testing._contract.base import CheckProvider, ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, present
from fleeting.testing._contract.promises import Promise, shows
from fleeting.testing._contract.resources import Resources
from fleeting.testing._contract.secrets import shows_secret
from fleeting.types import Severity

__all__ = ("CheckTests",)

_WORST_FIRST = list(Severity)


class CheckTests(ContractBase):
    """The findings of a provider before a group is opened."""

    @shows(Promise.CHECKING, adds=0)
    async def test_check_starts_nothing(
        self, open_group: OpenGroup, check_provider: CheckProvider | None
    ) -> None:
        """A check adds and removes no instance, and leaves nothing behind."""
        check = _check(check_provider)
        async with self.opening(open_group) as group:
            before = present(await self.listed(group))
        await check()
        resources = await Resources.settled()
        await check()
        await resources.restored(self.call_timeout, "the check")
        async with self.opening(open_group) as group:
            after = await self.listed(group)
        if self.keeps_instances:
            expect(present(after) == before, f"check changed {present(after) ^ before}")
        expect(not after.pending, f"check requested {after.pending} instances")

    @shows(Promise.CHECKING, adds=0)
    async def test_findings_say_what_matters(
        self, open_group: OpenGroup, check_provider: CheckProvider | None
    ) -> None:
        """Findings have a code and a reason, worst first; a group that opens has no error."""
        check = _check(check_provider)
        async with self.opening(open_group) as group:
            expect(group.info.id, "info.id is empty")
        findings = await check()
        for finding in findings:
            expect(
                finding.code and finding.reason, f"a finding has no code or no reason: {finding}"
            )
            expect(
                not shows_secret(f"{finding.reason} {finding.fix}", self.secrets),
                f"the finding {finding.code} shows a secret",
            )
            expect(
                finding.severity is not Severity.ERROR,
                f"the group can be opened, but check reports {finding.code}: {finding.reason}",
            )
        order = [_WORST_FIRST.index(finding.severity) for finding in findings]
        expect(order == sorted(order), f"the worst finding does not come first: {findings}")


def _check(check_provider: CheckProvider | None) -> CheckProvider:
    if check_provider is None:
        pytest.skip("the fixture check_provider is not overridden")
    return check_provider
