from __future__ import annotations

from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest

from fleeting.testing import FakeInstanceGroup, InstanceGroupContract
from fleeting.testing._contract.cancelling import cancelled_at
from fleeting.testing._contract.examination import examine
from fleeting.testing._contract.promises import Promise, promise_of
from fleeting.testing._contract.resources import Resources
from fleeting.testing._contract.secrets import redact, secret_values, shows_secret
from fleeting.testing._contract.terms import Terms
from fleeting.testing._run.table import (
    ContractOutcome,
    Result,
    Verdict,
    judge,
    render,
    report_of,
)

LIMIT = timedelta(seconds=0.2)
SIZE, WATCH = Promise.SIZE.value, Promise.WATCHING.value


class TestVerdicts:
    @pytest.mark.parametrize(
        ("results", "verdict"),
        [
            ([], Verdict.NOT_SHOWN),
            ([Result.SKIPPED], Verdict.NOT_SHOWN),
            ([Result.PASSED, Result.SKIPPED], Verdict.KEPT),
            ([Result.PASSED, Result.FAILED, Result.SKIPPED], Verdict.BROKEN),
        ],
    )
    def test_one_failure_breaks_a_promise(self, results: list[Result], verdict: Verdict) -> None:
        """A failed test breaks a promise, a passed test shows it, a skipped test shows nothing."""
        outcomes = [ContractOutcome(f"test_{n}", SIZE, result) for n, result in enumerate(results)]
        (judgement,) = [one for one in judge(outcomes) if one.promise is Promise.SIZE]
        assert judgement.verdict is verdict

    def test_every_promise_has_a_line(self) -> None:
        """Tests are named, with the reason if they did not pass or were not run."""
        outcomes = [
            ContractOutcome("test_a", SIZE, Result.PASSED),
            ContractOutcome("test_b", SIZE, Result.FAILED, "one came too many"),
            ContractOutcome("test_c", WATCH, Result.SKIPPED, "it cannot"),
            ContractOutcome("test_d", WATCH, Result.SKIPPED, "it cannot"),
        ]
        known = {"test_c": Promise.WATCHING, "test_e": Promise.CHECKING}
        lines = [line.text for line in render(judge(outcomes, known), 100)]
        where = lines.index("broken     growing and shrinking")
        assert lines[where + 1 : where + 3] == [
            "           test_a",
            "           test_b failed: one came too many",
        ]
        assert lines[lines.index("not shown  watch") + 1].strip() == (
            "test_c, test_d were skipped: it cannot"
        )
        assert lines[-2].strip() == "test_e was not run"
        assert sum(line.startswith("not shown") for line in lines) == len(Promise) - 1
        assert lines[-1] == f"0 kept, 1 broken, {len(Promise) - 1} not shown"

    def test_lines_fit(self) -> None:
        """The table fits the width of the terminal, and names every test."""
        outcomes = [ContractOutcome(f"test_{'x' * 30}_{n}", SIZE, Result.PASSED) for n in range(9)]
        lines = [line.text for line in render(judge(outcomes), 80)]
        assert max(map(len, lines)) <= 80
        assert all(outcome.test in "\n".join(lines) for outcome in outcomes)

    def test_report(self) -> None:
        """The report contains each promise, its verdict, and its tests with their results."""
        report = report_of({"mine": judge([ContractOutcome("test_b", SIZE, Result.FAILED, "why")])})
        (group,) = report["groups"]
        (promise,) = [one for one in group["promises"] if one["promise"] == SIZE]
        assert (group["name"], promise["verdict"]) == ("mine", "broken")
        assert promise["tests"] == [{"name": "test_b", "result": "failed", "reason": "why"}]


class TestPromises:
    def test_every_test_has_a_promise(self) -> None:
        """Each test of the contract declares its promise, and each promise has a test."""
        tests = [name for name in dir(InstanceGroupContract) if name.startswith("test_")]
        shown = {name: promise_of(InstanceGroupContract, name) for name in tests}
        assert [name for name, one in shown.items() if one is None] == []
        assert {one.promise for one in shown.values() if one} == set(Promise)

    def test_overridden_test_keeps_its_promise(self) -> None:
        """A test that an author overrides stays in the table; an added test is not in it."""

        class Mine(InstanceGroupContract):
            async def test_watch_can_be_cancelled(self) -> None:  # type: ignore[override]
                """Test it in another way."""

            def test_more(self) -> None:
                """Test something else."""

        shown = promise_of(Mine, "test_watch_can_be_cancelled")
        assert shown is not None
        assert shown.promise is Promise.WATCHING
        assert promise_of(Mine, "test_more") is None


class TestSecrets:
    def test_keys_that_name_secrets(self) -> None:
        """Values are secrets by the names of their keys, unless the key names a place."""
        table = {
            "password": "one",
            "region": "no",
            "key_path": "no",
            "token_file": "no",
            "secret_id": "no",
            "nested": {"client_secret": "two", "api_key": "three"},
            "passwords": ["four"],
            "credentials_count": 5,
        }
        assert set(secret_values(table)) == {"one", "two", "three", "four"}

    def test_secrets_are_found_in_every_form(self) -> None:
        """A secret is found escaped, and a key by any of its lines."""
        key = "-----BEGIN KEY-----\nabcdefghijklmnopqrstuvwxyz\nshort\n-----END KEY-----\n"
        assert shows_secret(f"raised for {key!r}", [key])
        assert shows_secret("... klm abcdefghijklmnopqrstuvwxyz ...", [key])
        assert not shows_secret("-----BEGIN KEY----- short", [key])
        assert redact(f"a {key!r} b", [key]) == "a '***' b"
        assert redact("a=it's, b=1", ["it's", "1"]) == "a=***, b=1"


class TestCancelling:
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_point_is_reached_or_not(self) -> None:
        """A call is cancelled at the given await, or ends if it has fewer awaits."""
        passed: list[int] = []

        async def call() -> None:
            for number in range(3):
                await anyio.lowlevel.checkpoint()
                passed.append(number)

        assert await cancelled_at(2, call(), limit=LIMIT)
        assert passed == [0]
        assert not await cancelled_at(9, call(), limit=LIMIT)
        assert passed == [0, 0, 1, 2]

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_shielded_work_may_finish(self) -> None:
        """Shielded work, or a scope of the call's own, is not an ignored cancellation."""

        async def call() -> str:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            with anyio.CancelScope() as own:
                own.cancel()
                await anyio.lowlevel.checkpoint()
            return "finished"

        for point in range(1, 5):
            await cancelled_at(point, call(), limit=LIMIT)

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_blocked_call_is_cancelled(self) -> None:
        """With `may_block`, a call that waits for ever is cancelled while it waits."""
        assert not await cancelled_at(9, anyio.sleep_forever(), limit=LIMIT, may_block=True)

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_call_that_ignores_the_cancellation(self) -> None:
        """A call that continues after its cancellation fails the test within the limit."""

        async def call() -> None:
            while True:
                try:
                    await anyio.sleep(0.01)
                except anyio.get_cancelled_exc_class():
                    continue

        with pytest.raises(AssertionError, match=r"watch was cancelled at its await number 1.*on"):
            await cancelled_at(1, call(), limit=LIMIT, name="watch")


class TestExamination:
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_failed_clean_up_is_a_note(self) -> None:
        """If a test fails and its instances cannot be removed, the failure says so."""
        group = FakeInstanceGroup(removal_updates=None)
        with pytest.raises(ValueError, match="found") as caught:
            async with examine(group, Terms(LIMIT, LIMIT)) as examination:
                await examination.grow(1)
                raise ValueError("found")
        assert "The test may have left instances behind" in caught.value.__notes__[0]


class TestResources:
    def test_excess_is_human_readable(self) -> None:
        """Additional resources are counted and named; fewer resources are ignored."""
        before = Resources(tasks=2, threads=1, sockets=0, files=9, processes=0)
        after = Resources(tasks=3, threads=1, sockets=2, files=8, processes=1)
        assert after.excess(before) == "1 task, 2 sockets, 1 child process"
        assert before.excess(before) == ""
