"""`fleeting group` and `check` with plugins that break their contract, and people in a hurry."""

from __future__ import annotations

import shlex
import signal
import subprocess
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from typing_extensions import override

from fleeting.cli._changes import decrease, increase
from fleeting.cli._findings import check_group
from fleeting.cli._remote_command import exit_code
from fleeting.cli._signals import run_cancellable
from fleeting.cli._status import show_status
from fleeting.cli._watch import arranged, watch
from fleeting.errors import ConfigError, ProviderError
from fleeting.testing import FakeInstanceGroup, Reply
from fleeting.types import Capability, Duration, Exit, GroupSettings, Notice
from own_terminal import Terminal
from plugin_folder import PluginFolder
from prepared_group import PreparedProvider, selected, selection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from farm import Farm
    from fleeting.types import Finding

DEADLINE_SECONDS = 30

# Its listing never comes, and no cancellation reaches it.
HANGING = """
import time
from contextlib import asynccontextmanager
from datetime import timedelta
import anyio
from fleeting.plugin import hookimpl
from fleeting.testing import FakeInstanceGroup, FakeProvider
from fleeting.types import Capability

def hang():
    print("asked", flush=True)
    time.sleep(1000)

class Group(FakeInstanceGroup):
    async def update(self):
        await anyio.to_thread.run_sync(hang)

class Provider(FakeProvider):
    name = "hanging"

    @asynccontextmanager
    async def open(self, config, settings):
        yield Group()

@hookimpl
def fleeting_provider():
    return Provider()
"""


class Wrong(FakeInstanceGroup):
    """A group whose answers are none."""

    @override
    async def update(self) -> Any:
        return None

    @override
    async def increase(self, count: int, operation: str) -> Any:
        return count


class Talking(FakeInstanceGroup):
    """A group whose announcements end in a bug."""

    @override
    async def watch(self) -> AsyncIterator[Notice]:
        yield Notice("one", "to be sold")
        raise KeyError("two")


class Closing(PreparedProvider):
    """Fails when it closes a group."""

    @override
    @asynccontextmanager
    async def open(self, config: object, settings: object) -> AsyncGenerator[FakeInstanceGroup]:
        try:
            yield self.group
        finally:
            raise KeyError("session")


class Swallowing(PreparedProvider):
    """Takes the errors of others for its own, and says nothing."""

    @override
    @asynccontextmanager
    async def open(self, config: object, settings: object) -> AsyncGenerator[FakeInstanceGroup]:
        try:  # noqa: SIM105 - contextlib.suppress would say that this is right
            yield self.group
        except Exception:  # noqa: BLE001, S110 - a plugin's mistake
            pass


class Checking(PreparedProvider):
    """Finds what is no finding."""

    @override
    async def check(self, config: object, settings: object) -> Sequence[Finding]:
        found: Any = "f"
        return cast("Sequence[Finding]", found)


def named(provider: Prepared) -> Target:
    """Return the name of the group of a provider."""
    return Target("plugin fake", provider, None, GroupSettings(), "--plugin fake")


# Plugins that break their contract.


def test_an_answer_that_is_none_is_told() -> None:
    """Who returned something else is named, and no traceback is shown."""
    with pytest.raises(ProviderError, match=r"bug .*gave NoneType instead of Listing.*author"):
        run_cancellable(show_status, selection(Wrong()), as_json=False)
    with pytest.raises(ProviderError, match=r"bug .*gave int instead of Accepted"):
        run_cancellable(increase, selection(Wrong()), 1, force=True, wait=None)


def test_a_bug_in_closing_is_told() -> None:
    """What a plugin raises when it closes a group is a sentence, too."""
    with pytest.raises(ProviderError, match=r"did not close: the plugin has a bug .KeyError"):
        run_cancellable(show_status, selected(Closing(FakeInstanceGroup())), as_json=False)


def test_closing_hides_no_error() -> None:
    """What went wrong in the group is told, and not what closing it made of that."""
    group = FakeInstanceGroup()
    group.always("update", Reply(error=ProviderError("the cloud is away")))
    with pytest.raises(ProviderError, match="the cloud is away"):
        run_cancellable(show_status, selected(Closing(group)), as_json=False)


def test_a_plugin_swallows_no_error() -> None:
    """A failure is one also where the plugin catches what is not its own."""
    group = FakeInstanceGroup()
    group.always("update", Reply(error=ProviderError("the cloud is away")))
    with pytest.raises(ProviderError, match="the cloud is away"):
        run_cancellable(show_status, selected(Swallowing(group)), as_json=False)


def test_a_finding_that_is_none_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """A check that answers something else has failed, which is an error."""
    checked = selected(Checking(FakeInstanceGroup()))
    assert run_cancellable(check_group, checked, connects=True, as_json=False) == 1
    assert (
        "check-failed: plugin fake was not checked: the plugin has a bug (TypeError: it gave "
        in (capsys.readouterr().out)
    )


def test_a_group_that_is_none_is_told() -> None:
    """A plugin that opens something else has a bug."""
    nothing: Any = None
    with pytest.raises(ProviderError, match=r"did not open: .*NoneType instead of InstanceGroup"):
        run_cancellable(show_status, selected(PreparedProvider(nothing)), as_json=False)


@pytest.mark.anyio
async def test_a_mistake_inside_stays_what_it_is() -> None:
    """An error of ours is not taken for one of the plugin."""
    with pytest.raises(ZeroDivisionError):
        async with opened(selected(Closing(FakeInstanceGroup()))):
            raise ZeroDivisionError
    with pytest.raises(ConfigError):
        async with opened(selection(FakeInstanceGroup())):
            raise ConfigError("wrong")


@pytest.mark.anyio
async def test_notices_that_fail_end_no_watch(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug in the notices is a line, and the group is looked at all the same."""
    group = Talking(capabilities=[Capability.WATCH])
    await group.increase(1, "one")
    shown = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, selection(group), Duration(milliseconds=10))
        with anyio.fail_after(DEADLINE_SECONDS):
            while "no notices" not in shown or "new, " not in shown:
                await anyio.sleep(0.01)
                shown += capsys.readouterr().out
        tasks.cancel_scope.cancel()
    assert "one: will be taken away: to be sold" in shown
    assert "announces nothing: the plugin has a bug (KeyError: 'two'); tell its author" in shown


def test_waiting_outlasts_a_cloud_that_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was accepted is coming, so a listing that fails once does not end the wait."""
    monkeypatch.setattr("fleeting.cli._changes.WAIT_INTERVAL_SECONDS", 0.01)
    group = FakeInstanceGroup()
    away = Reply(error=ProviderError("the cloud is away"))
    group.script("update", Reply(), away)
    assert run_cancellable(increase, selection(group), 1, force=True, wait=Duration(minutes=1)) == 0
    assert "running: " in capsys.readouterr().out


def test_nobody_is_told_to_ask_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An increase that nobody answered may be carried out, so it is not to be repeated blindly."""
    monkeypatch.setattr("fleeting.cli._open_group.CALL_SECONDS", 0.01)
    group = FakeInstanceGroup()
    group.always("increase", Reply(after=timedelta(hours=1)))
    with pytest.raises(ProviderError, match="may happen all the same, so look at"):
        run_cancellable(increase, selection(group), 1, force=True, wait=None)


@pytest.mark.anyio
async def test_an_interrupted_change_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C takes nothing back that the cloud has got, and says so."""
    group = FakeInstanceGroup()
    group.always("increase", Reply(after=timedelta(hours=1)))
    with anyio.move_on_after(0.05):
        await increase(selection(group), 1, force=True, wait=None)
    assert "takes 1 more before the end; it may happen all the same" in capsys.readouterr().err


# People in a hurry.


def test_a_second_interrupt_waits_for_nothing(tmp_path: Path) -> None:
    """Where a plugin hears of no cancellation, Ctrl-C again leaves at once, without a traceback."""
    plugins = PluginFolder(tmp_path / "plugins")
    plugins.add("hanging", HANGING)
    words = ("group", "status", "--plugin", "hanging")
    with subprocess.Popen(
        [plugins.program, *words],
        env=plugins.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        until = time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        process.kill()
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")


def test_a_screen_is_given_back_in_a_hurry(tmp_path: Path) -> None:
    """Ctrl-C twice leaves no terminal on another screen, without a cursor."""
    plugins = PluginFolder(tmp_path / "plugins")
    plugins.add("hanging", HANGING)
    words = ("group", "watch", "--plugin", "hanging")
    terminal = Terminal(str(plugins.program), words, tmp_path, environment=plugins.environment)
    try:
        assert "\x1b[?1049h" in terminal.read_until("asked")
        until = time.monotonic() + DEADLINE_SECONDS
        while terminal.process.poll() is None and time.monotonic() < until:
            terminal.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert terminal.process.wait(DEADLINE_SECONDS) == 130
        assert "\x1b[?25h\x1b[?1049l" in terminal.read_all()
    finally:
        terminal.close()


def test_an_interrupt_that_is_told_twice_is_one(farm: Farm) -> None:
    """A program around us passes Ctrl-C on that the terminal told us, too; clean-up goes on."""
    [id] = farm.grow(1)
    process = farm.start("run", id, *farm.named, "--", "sh", "-c", "echo up; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for _ in range(5):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, errors) == (130, "\ninterrupted\n")


# Asking, showing, ending.


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("decrease local-0 <&-", 2, "without a terminal"),
        ("connect local-0 <&- >&-", 2, "needs a terminal"),
        ("increase 1 --wait >&- 2>&-", 0, ""),
        ("status >&- <&-", 0, ""),
    ],
)
def test_closed_streams_are_as_good_as_none(farm: Farm, words: str, code: int, said: str) -> None:
    """Whichever standard streams are closed, a command ends as it would without a terminal."""
    subcommand, *rest = words.split()
    line = [f'exec "{farm.program}"', "group", subcommand, shlex.join(farm.named), *rest]
    done = subprocess.run(  # noqa: S602 - closed streams are a matter of shells
        " ".join(line),
        shell=True,
        env=farm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_listed_is_asked_for_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A listing may be behind the times, so what it leaves out is not removed without consent."""
    questions: list[str] = []

    async def no(question: str) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr("fleeting.cli._changes._confirmed", no)
    group = FakeInstanceGroup()
    assert (
        run_cancellable(decrease, selection(group), ["i-1", "i-2", "i-1"], force=True, yes=False)
        == 1
    )
    assert questions == [f"remove these 2 instances (2 not listed) of group {group.info.id}?"]
    assert "nothing was removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (3, 3), (255, 255), (256, 1), (0xC0000005, 5), (-1, 255)]
)
def test_a_failure_never_looks_like_success(status: int, code: int) -> None:
    """Codes of other systems are wider than ours."""
    assert exit_code(Exit(status)) == code


def test_a_window_shows_the_group_first() -> None:
    """The newest notes get what the group leaves, and a third of the screen at least."""
    group = ["group", "2 instances", "", "ID", "a", "b"]
    notes = ["1", "2", "3", "4"]
    assert arranged(group, notes, 80, 20) == [*group, "", *notes]
    assert arranged(group, notes, 80, 9) == [*group, "", "3", "4"]
    assert arranged(group, notes, 80, 6) == [*group[:3], "... 3 more lines", "", "4"]
    assert arranged(group, notes, 3, 2) == ["gro", "..."]
    assert arranged(group, notes, 80, 0) == []


def test_a_terminal_without_a_cursor_gets_lines(farm: Farm) -> None:
    """Where TERM says that nothing can be drawn, each change is a line."""
    [id] = farm.grow(1)
    terminal = farm.terminal("watch", environment={"TERM": "dumb"})
    assert "\x1b" not in terminal.read_until(f"{id}: new, running")
