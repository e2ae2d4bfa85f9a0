"""`fleeting group` and `check` with faulty plugins, repeated signals and odd streams."""

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
from fleeting.cli._open_group import open_group
from fleeting.cli._remote_command import exit_code
from fleeting.cli._signals import run_cancellable
from fleeting.cli._status import show_status
from fleeting.cli._watch import arranged, watch
from fleeting.errors import ConfigError, ProviderError
from fleeting.testing import FakeInstanceGroup, Reply
from fleeting.types import Capability, Duration, Exit, Notice
from own_terminal import Terminal
from plugin_folder import PluginFolder
from prepared_group import PreparedProvider, selected, selection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from farm import Farm
    from fleeting.types import Finding

DEADLINE_SECONDS = 30

# Its listing blocks in a thread that cannot be cancelled.
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


class WrongTypes(FakeInstanceGroup):
    """A group that returns values of wrong types."""

    @override
    async def update(self) -> Any:
        return None

    @override
    async def increase(self, count: int, operation: str) -> Any:
        return count


class FailingWatch(FakeInstanceGroup):
    """A group whose watch ends with a bug."""

    @override
    async def watch(self) -> AsyncIterator[Notice]:
        yield Notice("one", "spot price")
        raise KeyError("two")


class FailingClose(PreparedProvider):
    """Has a bug in closing a group."""

    @override
    @asynccontextmanager
    async def open(self, config: object, settings: object) -> AsyncGenerator[FakeInstanceGroup]:
        try:
            yield self.group
        finally:
            raise KeyError("session")


class SwallowingClose(PreparedProvider):
    """Swallows the errors of the code that uses the group."""

    @override
    @asynccontextmanager
    async def open(self, config: object, settings: object) -> AsyncGenerator[FakeInstanceGroup]:
        try:  # noqa: SIM105 - contextlib.suppress would say that this is right
            yield self.group
        except Exception:  # noqa: BLE001, S110 - a plugin's mistake
            pass


class WrongFindings(PreparedProvider):
    """Has a check that returns a wrong type."""

    @override
    async def check(self, config: object, settings: object) -> Sequence[Finding]:
        found: Any = "f"
        return cast("Sequence[Finding]", found)


# Faulty plugins.


def test_wrong_type_is_a_bug_of_the_plugin() -> None:
    """A value of a wrong type is reported as a bug of the plugin."""
    with pytest.raises(ProviderError, match=r"bug .*returned NoneType instead of Listing.*author"):
        run_cancellable(show_status, selection(WrongTypes()), as_json=False)
    with pytest.raises(ProviderError, match=r"bug .*returned int instead of Accepted"):
        run_cancellable(increase, selection(WrongTypes()), 1, force=True, wait=None)


def test_error_in_closing_is_a_bug_of_the_plugin() -> None:
    """An unexpected error in closing the group is reported as a bug of the plugin."""
    with pytest.raises(ProviderError, match=r"did not close: the plugin has a bug .KeyError"):
        run_cancellable(show_status, selected(FailingClose(FakeInstanceGroup())), as_json=False)


def test_closing_hides_no_error() -> None:
    """An error of the command is reported rather than one of closing the group."""
    group = FakeInstanceGroup()
    group.always("update", Reply(error=ProviderError("the cloud is away")))
    with pytest.raises(ProviderError, match="the cloud is away"):
        run_cancellable(show_status, selected(FailingClose(group)), as_json=False)


def test_a_plugin_swallows_no_error() -> None:
    """An error of the command is reported although the plugin swallows it."""
    group = FakeInstanceGroup()
    group.always("update", Reply(error=ProviderError("the cloud is away")))
    with pytest.raises(ProviderError, match="the cloud is away"):
        run_cancellable(show_status, selected(SwallowingClose(group)), as_json=False)


def test_finding_of_a_wrong_type_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A check that returns something else than findings has failed."""
    checked = selected(WrongFindings(FakeInstanceGroup()))
    assert run_cancellable(check_group, checked, connects=True, as_json=False) == 1
    assert (
        "check-failed: plugin fake was not checked: the plugin has a bug (TypeError: it returned "
        in (capsys.readouterr().out)
    )


def test_group_of_a_wrong_type_is_a_bug_of_the_plugin() -> None:
    """A provider that opens something else than a group has a bug."""
    nothing: Any = None
    with pytest.raises(ProviderError, match=r"did not open: .*NoneType instead of InstanceGroup"):
        run_cancellable(show_status, selected(PreparedProvider(nothing)), as_json=False)


@pytest.mark.anyio
async def test_error_of_the_command_is_unchanged() -> None:
    """An error of the command is not reported as a bug of the plugin."""
    with pytest.raises(ZeroDivisionError):
        async with open_group(selected(FailingClose(FakeInstanceGroup()))):
            raise ZeroDivisionError
    with pytest.raises(ConfigError):
        async with open_group(selection(FakeInstanceGroup())):
            raise ConfigError("wrong")


@pytest.mark.anyio
async def test_failing_notices_do_not_end_the_watch(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug in the notices is one line, and the listings continue."""
    group = FailingWatch(capabilities=[Capability.WATCH])
    await group.increase(1, "one")
    shown = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, selection(group), Duration(milliseconds=10))
        with anyio.fail_after(DEADLINE_SECONDS):
            while "notices failed" not in shown or "new, " not in shown:
                await anyio.sleep(0.01)
                shown += capsys.readouterr().out
        tasks.cancel_scope.cancel()
    assert "one: will be interrupted: spot price" in shown
    assert "stopped sending notices: the plugin has a bug (KeyError: 'two'); report it" in shown


def test_wait_survives_a_failed_listing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A listing that fails once does not end the wait for instances."""
    monkeypatch.setattr("fleeting.cli._changes.WAIT_INTERVAL_SECONDS", 0.01)
    group = FakeInstanceGroup()
    away = Reply(error=ProviderError("the cloud is away"))
    group.script("update", Reply(), away)
    assert run_cancellable(increase, selection(group), 1, force=True, wait=Duration(minutes=1)) == 0
    assert "running: " in capsys.readouterr().out


def test_unconfirmed_increase_may_still_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a timeout warns against repeating the increase without a check."""
    monkeypatch.setattr("fleeting.cli._open_group.CALL_SECONDS", 0.01)
    group = FakeInstanceGroup()
    group.always("increase", Reply(after=timedelta(hours=1)))
    with pytest.raises(ProviderError, match="may still be carried out, so check"):
        run_cancellable(increase, selection(group), 1, force=True, wait=None)


@pytest.mark.anyio
async def test_interrupted_increase_may_still_happen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ctrl-C during a change says that the change may still be carried out."""
    group = FakeInstanceGroup()
    group.always("increase", Reply(after=timedelta(hours=1)))
    with anyio.move_on_after(0.05):
        await increase(selection(group), 1, force=True, wait=None)
    assert "did not confirm the increase by 1; the request may still" in capsys.readouterr().err


# Repeated signals.


def test_second_interrupt_ends_a_blocked_command(tmp_path: Path) -> None:
    """If a plugin blocks, a second Ctrl-C ends the command at once, without a traceback."""
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
        assert process.stderr is not None
        # Standard output is for the command.
        assert process.stderr.readline() == "asked\n"
        until = time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None and time.monotonic() < until:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        process.kill()
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")


def test_second_interrupt_restores_the_screen(tmp_path: Path) -> None:
    """A second Ctrl-C returns from the alternate screen and shows the cursor."""
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


def test_repeated_interrupt_is_one(shared_farm: Farm, instance_id: str) -> None:
    """Signals in quick succession are one Ctrl-C, and do not stop the clean-up."""
    process = shared_farm.start_remote(instance_id, "sh", "-c", "echo up; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for _ in range(5):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, errors) == (130, "\ninterrupted\n")


# Streams and screens.


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("decrease local-0 <&-", 2, "without a terminal"),
        ("connect local-0 <&- >&-", 2, "needs a terminal"),
        ("increase 1 --wait >&- 2>&-", 0, ""),
        ("status >&- <&-", 0, ""),
    ],
)
def test_closed_streams(shared_farm: Farm, words: str, code: int, said: str) -> None:
    """With closed standard streams, a command behaves as it does without a terminal."""
    subcommand, *rest = words.split()
    line = [
        f'exec "{shared_farm.program}"',
        "group",
        subcommand,
        shlex.join(shared_farm.named),
        *rest,
    ]
    done = subprocess.run(  # noqa: S602 - a shell closes the streams
        " ".join(line),
        shell=True,
        env=shared_farm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_unlisted_instances_need_confirmation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instances that are not listed are removed only after a confirmation, too."""
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
    assert questions == [f"Remove 2 instances (2 not listed) from group {group.info.id}?"]
    assert "nothing was removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (3, 3), (255, 255), (256, 1), (0xC0000005, 5), (-1, 255)]
)
def test_exit_code_of_a_failure_is_not_0(status: int, code: int) -> None:
    """A wide status, as on other systems, never becomes 0."""
    assert exit_code(Exit(status)) == code


def test_notes_get_a_third_of_the_screen() -> None:
    """The notes get the rows that the group leaves, and at least a third of the screen."""
    group = ["group", "2 instances", "", "ID", "a", "b"]
    notes = ["1", "2", "3", "4"]
    assert arranged(group, notes, 80, 20) == [*group, "", *notes]
    assert arranged(group, notes, 80, 9) == [*group, "", "3", "4"]
    assert arranged(group, notes, 80, 6) == [*group[:3], "... 3 more lines", "", "4"]
    assert arranged(group, notes, 3, 2) == ["gro", "..."]
    assert arranged(group, notes, 80, 0) == []


def test_dumb_terminal_gets_lines(shared_farm: Farm, instance_id: str) -> None:
    """On a terminal that cannot move its cursor, each change is a line."""
    terminal = shared_farm.terminal("watch", environment={"TERM": "dumb"})
    assert "\x1b" not in terminal.read_until(f"{instance_id}: new, running")
