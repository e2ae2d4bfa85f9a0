"""Tests of reaching an instance, of what only some groups can do, and of what must not show."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import FleetingError
from fleeting.testing._cancelling import cancelled_at
from fleeting.testing._contract_base import CheckProvider, ContractBase, OpenGroup
from fleeting.testing._examination import check_ids, expect, present, running
from fleeting.testing._promises import Promise, shows
from fleeting.testing._resources import Resources
from fleeting.testing._secrets import shows_secret
from fleeting.types import Capability, Notice, Severity, State

if TYPE_CHECKING:
    from pathlib import Path

    from fleeting.abc import InstanceGroup
    from fleeting.testing._examination import Examination

__all__ = ("CapabilityTests", "CheckTests", "ConnectTests", "SecretTests")

_WORST_FIRST = list(Severity)


class ConnectTests(ContractBase):
    """Reaching an instance."""

    @shows(Promise.IDENTITY, adds=1)
    async def test_connect_info_is_about_the_instance(self, open_group: OpenGroup) -> None:
        """The answer of `connect_info` is about the instance, and so is the next one."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            for _ in range(2):
                info = await examination.call(examination.group.connect_info, id)
                expect(info.id == id, f"connect_info({id!r}) is about {info.id!r}")
                expect(info.protocol, f"connect_info({id!r}) names no protocol")

    @shows(Promise.CONNECTING, adds=1)
    async def test_command_runs_on_the_instance(self, open_group: OpenGroup) -> None:
        """With the answer of `connect_info`, a command runs on it, and nothing else happens."""
        if not self.can_connect:
            pytest.skip("the instances are declared not to be reached from here")
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            info = await examination.call(examination.group.connect_info, id)
            async with await self.connect(examination.group, info) as connection:
                completed = await connection.run(self.command)
            expect(completed.succeeded, f"{self.command!r} on the instance: {completed}")
            expect(
                id in running(await examination.listing()),
                f"{id} does not run any more after a connection to it",
            )
            await examination.call(examination.group.heartbeat, id)

    @shows(Promise.CONNECTING, adds=1)
    async def test_files_are_copied(self, open_group: OpenGroup, tmp_path: Path) -> None:
        """A file that is copied to an instance comes back as it was: jobs bring some along."""
        if not self.can_connect:
            pytest.skip("the instances are declared not to be reached from here")
        name, content = f"contract-{uuid.uuid4().hex}", bytes(range(256)) * 300
        there, back = tmp_path / "there", tmp_path / "back"
        there.write_bytes(content)
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            info = await examination.call(examination.group.connect_info, id)
            async with await self.connect(examination.group, info) as connection:
                await connection.put(there, name)
                await connection.get(name, back)
        expect(back.read_bytes() == content, f"a file came back from {id} with another content")


class CapabilityTests(ContractBase):
    """What only some groups can do, and say that they can."""

    @shows(Promise.SUSPENDING, adds=1)
    async def test_suspend_and_resume(self, open_group: OpenGroup) -> None:
        """An instance is suspended and resumed, and each may be asked for twice."""
        async with self.examined(open_group, adds=1) as examination:
            group = _suspending(examination)
            (id,) = await examination.grow(1)
            for change, state in (
                (group.suspend, State.SUSPENDED),
                (group.suspend, State.SUSPENDED),
                (group.resume, State.RUNNING),
                (group.resume, State.RUNNING),
            ):
                accepted = await examination.call(change, [id])
                check_ids(accepted, [id], change.__name__)
                expect(accepted.count == 1, f"{change.__name__} did not accept {id}")
                await examination.becomes(id, state)

    @shows(Promise.SUSPENDING, adds=2)
    async def test_suspended_instance_stays_listed(self, open_group: OpenGroup) -> None:
        """A suspended instance stays in the listing, the others run on, and it can be removed."""
        async with self.examined(open_group, adds=2) as examination:
            group = _suspending(examination)
            before = present(await examination.listing())
            id, other = await examination.grow(2)
            await examination.call(group.suspend, [id])
            await examination.becomes(id, State.SUSPENDED)
            await examination.stays({*before, id, other}, "the suspended instance was replaced")
            listing = await examination.listing()
            expect(id in present(listing), f"{id} is suspended and not listed any more")
            expect(other in running(listing), f"{other} does not run, though {id} was suspended")
            await examination.decrease([id])
            await examination.goes_away(id)

    @shows(Promise.SUSPENDING, adds=1)
    async def test_resumed_instance_is_the_same(self, open_group: OpenGroup) -> None:
        """An instance that is resumed is the one that was suspended, and works."""
        async with self.examined(open_group, adds=1) as examination:
            group = _suspending(examination)
            (id,) = await examination.grow(1)
            before = {one.id: one.incarnation for one in (await examination.listing()).instances}
            await examination.call(group.suspend, [id])
            await examination.becomes(id, State.SUSPENDED)
            await examination.call(group.resume, [id])
            await examination.becomes(id, State.RUNNING)
            after = {one.id: one.incarnation for one in (await examination.listing()).instances}
            expect(
                before[id] in {None, after.get(id)},
                f"{id} was resumed as another machine: {after.get(id)}, and not {before[id]}",
            )
            await examination.call(group.heartbeat, id)

    @shows(Promise.WATCHING, adds=0)
    async def test_watch_can_be_cancelled(self, open_group: OpenGroup) -> None:
        """Watching a group ends when it is cancelled, at whatever await, and leaves nothing."""
        async with self.examined(open_group) as examination:
            group = _watchable(examination)
            resources = await Resources.settled()
            for point in range(1, self.cancellation_points + 1):
                watch = group.watch()
                try:
                    reached = await cancelled_at(
                        point,
                        anext(watch),
                        limit=self.call_timeout,
                        name="watch",
                        may_block=True,
                    )
                finally:
                    if isinstance(watch, AsyncGenerator):
                        with anyio.CancelScope(shield=True):
                            await watch.aclose()
                await examination.listing()
                if not reached:
                    break
            await resources.restored(self.call_timeout, "a cancelled watch")

    @shows(Promise.WATCHING, adds=1)
    async def test_watch_reports_an_interruption(self, open_group: OpenGroup) -> None:
        """Whoever watches a group is told which instance will be taken away, and why."""
        async with self.examined(open_group, adds=1) as examination:
            group = _watchable(examination)
            (id,) = await examination.grow(1)
            seen: list[Notice] = []

            async def watch() -> None:
                async for notice in group.watch():
                    seen.append(notice)
                    if notice.id == id:
                        return

            interrupted = False
            with anyio.move_on_after(self.instance_timeout.total_seconds()):
                async with anyio.create_task_group() as watching:
                    watching.start_soon(watch)
                    interrupted = await self.interrupt(group, id)
                    if not interrupted:
                        watching.cancel_scope.cancel()
            if not interrupted:
                pytest.skip("no interruption can be caused: `interrupt` is not overridden")
            expect(id in {one.id for one in seen}, f"no notice came of {id}; those came: {seen}")


class SecretTests(ContractBase):
    """What must not show."""

    @shows(Promise.SECRETS, adds=1)
    async def test_no_secret_shows(
        self, open_group: OpenGroup, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither an error nor a log line nor a `repr` shows a password, a key or a setting."""
        secrets = list(self.secrets)
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            # What its libraries write for the sake of debugging is not the provider's.
            caplog.set_level(logging.INFO)
            caplog.set_level(logging.DEBUG, logger=type(group).__module__.partition(".")[0])
            (id,) = await examination.grow(1)
            info = await examination.call(group.connect_info, id)
            secrets += [secret for secret in (info.password, info.private_key) if secret]
            shown = {"the repr of connect_info": repr(info), "the repr of the group": repr(group)}
            shown |= await _complaints(examination, self.unknown_id)
            reasons = [one.reason for one in (await examination.listing()).instances]
            await examination.decrease([id])
            await examination.goes_away(id)
            shown |= await _complaints(examination, id)
        for number, record in enumerate(caplog.records):
            text = logging.Formatter().format(record)
            shown[f"log line {number} of {record.name!r}"] = text
        shown["a reason of an instance"] = " ".join(filter(None, reasons))
        for where, text in shown.items():
            expect(not shows_secret(text, secrets), f"{where} shows a secret")
        if not secrets:
            pytest.skip("nothing secret is known: neither a password nor a key, nor `secrets`")


class CheckTests(ContractBase):
    """What the provider finds out before anything is opened."""

    @shows(Promise.CHECKING, adds=0)
    async def test_check_starts_nothing(
        self, open_group: OpenGroup, check_provider: CheckProvider | None
    ) -> None:
        """Checking adds and removes no instance, and leaves nothing behind."""
        check = _check(check_provider)
        async with open_group() as group:
            before = present(await group.update())
        await check()
        resources = await Resources.settled()
        await check()
        await resources.restored(self.call_timeout, "the check")
        async with open_group() as group:
            after = await group.update()
        if self.keeps_instances:
            expect(present(after) == before, f"check changed {present(after) ^ before}")
        expect(not after.pending, f"check asked for {after.pending} instances")

    @shows(Promise.CHECKING, adds=0)
    async def test_findings_say_what_matters(
        self, open_group: OpenGroup, check_provider: CheckProvider | None
    ) -> None:
        """Findings have a code and a reason, the worst first; a usable group has no error."""
        check = _check(check_provider)
        async with open_group() as group:
            expect(group.info.id, "info.id is empty")
        findings = await check()
        for finding in findings:
            expect(finding.code and finding.reason, f"a finding has no code or reason: {finding}")
            expect(
                not shows_secret(f"{finding.reason} {finding.fix}", self.secrets),
                f"the finding {finding.code} shows a secret",
            )
            expect(
                finding.severity is not Severity.ERROR,
                f"the group can be opened, and check says {finding.code}: {finding.reason}",
            )
        order = [_WORST_FIRST.index(finding.severity) for finding in findings]
        expect(order == sorted(order), f"the worst finding does not come first: {findings}")


def _suspending(examination: Examination) -> InstanceGroup:
    """Return the group if it can suspend its instances; else there is nothing to show."""
    return _capable(examination, Capability.SUSPEND, "suspend its instances")


def _watchable(examination: Examination) -> InstanceGroup:
    """Return the group if it can be watched; else there is nothing to show."""
    return _capable(examination, Capability.WATCH, "announce interruptions")


def _capable(examination: Examination, capability: Capability, what: str) -> InstanceGroup:
    if capability not in examination.group.info.capabilities:
        pytest.skip(f"the group does not declare that it can {what}")
    return examination.group


def _check(check_provider: CheckProvider | None) -> CheckProvider:
    if check_provider is None:
        pytest.skip("the fixture check_provider is not overridden")
    return check_provider


async def _complaints(examination: Examination, id: str) -> dict[str, str]:
    """Return the errors that come of asking about an instance that is not there."""
    found: dict[str, str] = {}
    for ask in (examination.group.connect_info, examination.group.heartbeat):
        try:
            await examination.call(ask, id)
        except FleetingError as error:
            found[f"the error of {ask.__name__}({id!r})"] = _in_full(error)
    return found


def _in_full(error: BaseException | None) -> str:
    """Return all that a person may get to see of an error: its causes and notes too."""
    parts: list[str] = []
    while error is not None:
        parts += [str(error), repr(error), *getattr(error, "__notes__", ())]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)
