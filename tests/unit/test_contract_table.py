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
from fleeting.testing._run.table import Outcome, Result, Verdict, judge, render, report_of

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
        """One failed test breaks it, one that passed shows it, a skipped one shows nothing."""
        outcomes = [Outcome(f"test_{n}", SIZE, result) for n, result in enumerate(results)]
        (judgement,) = [one for one in judge(outcomes) if one.promise is Promise.SIZE]
        assert judgement.verdict is verdict

    def test_every_promise_has_a_line(self) -> None:
        """Tests are named, with the reason where one did not pass, and those that were not run."""
        outcomes = [
            Outcome("test_a", SIZE, Result.PASSED),
            Outcome("test_b", SIZE, Result.FAILED, "one came too many"),
            Outcome("test_c", WATCH, Result.SKIPPED, "it cannot"),
            Outcome("test_d", WATCH, Result.SKIPPED, "it cannot"),
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
        """The table is no wider than the terminal, and loses nothing on the way."""
        outcomes = [Outcome(f"test_{'x' * 30}_{n}", SIZE, Result.PASSED) for n in range(9)]
        lines = [line.text for line in render(judge(outcomes), 80)]
        assert max(map(len, lines)) <= 80
        assert all(outcome.test in "\n".join(lines) for outcome in outcomes)

    def test_report_has_the_same(self) -> None:
        """The data for a program name each promise, its verdict, and each test with its result."""
        told = report_of({"mine": judge([Outcome("test_b", SIZE, Result.FAILED, "why")])})
        (group,) = told["groups"]
        (promise,) = [one for one in group["promises"] if one["promise"] == SIZE]
        assert (group["name"], promise["verdict"]) == ("mine", "broken")
        assert promise["tests"] == [{"name": "test_b", "result": "failed", "reason": "why"}]


class TestPromises:
    def test_every_test_of_the_contract_is_about_one(self) -> None:
        """Each test of the contract says what it is about, and each promise has a test."""
        tests = [name for name in dir(InstanceGroupContract) if name.startswith("test_")]
        shown = {name: promise_of(InstanceGroupContract, name) for name in tests}
        assert [name for name, one in shown.items() if one is None] == []
        assert {one.promise for one in shown.values() if one} == set(Promise)

    def test_overridden_test_is_about_the_same(self) -> None:
        """A test that an author overrides stays in the table, and one that is added does not."""

        class Mine(InstanceGroupContract):
            async def test_watch_can_be_cancelled(self) -> None:  # type: ignore[override]
                """It is another way here."""

            def test_more(self) -> None:
                """It is the author's."""

        shown = promise_of(Mine, "test_watch_can_be_cancelled")
        assert shown is not None
        assert shown.promise is Promise.WATCHING
        assert promise_of(Mine, "test_more") is None


class TestSecrets:
    def test_keys_that_name_secrets(self) -> None:
        """Texts are secrets by the names of their keys, unless these name a place of one."""
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

    def test_secrets_are_found_however_they_are_written(self) -> None:
        """A secret is found escaped, and a key by any of its lines; the rest is left as it was."""
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
        """A call is cancelled at the await that was asked for, and ends if it has fewer."""
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
    async def test_what_a_call_does_shielded_it_may_finish(self) -> None:
        """Shielded work, or a scope of the call's own, is no swallowed cancellation."""

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
    async def test_waiting_call_is_cancelled_where_it_waits(self) -> None:
        """A call that waits for what never comes is cancelled there, if that is expected."""
        assert not await cancelled_at(9, anyio.sleep_forever(), limit=LIMIT, may_block=True)

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_call_that_goes_on_is_given_up(self) -> None:
        """A call that goes on and on does not keep the test, on either event loop."""

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
    async def test_what_could_not_be_removed_is_told(self) -> None:
        """If a test fails, and its instances do not go away then, the failure says so."""
        group = FakeInstanceGroup(removal_updates=None)
        with pytest.raises(ValueError, match="found") as caught:
            async with examine(group, LIMIT, LIMIT) as examination:
                await examination.grow(1)
                raise ValueError("found")
        assert "Look for instances that the test has left" in caught.value.__notes__[0]


class TestResources:
    def test_excess_is_told_in_words(self) -> None:
        """What there is more of is counted in words, and what there is less of is no matter."""
        before = Resources(tasks=2, threads=1, sockets=0, files=9, processes=0)
        after = Resources(tasks=3, threads=1, sockets=2, files=8, processes=1)
        assert after.excess(before) == "1 task, 2 sockets, 1 child process"
        assert before.excess(before) == ""
