"""`fleeting group run`, `connect` and `watch`: a person at work on instances that are real."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.cli._remote_shell import EscapeKeys
from fleeting.cli._watch import changes, fitted, watch
from fleeting.errors import OutOfCapacity, PermissionDenied, ProviderError
from fleeting.testing import FakeInstanceGroup, Reply
from fleeting.types import Capability, Duration, Instance, Listing, Notice, State
from prepared_group import selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from farm import Farm
    from own_terminal import Terminal

DEADLINE_SECONDS = 30


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait for a fact about another process that announces itself to nobody."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process is there."""
    return Path(f"/proc/{pid}").exists()


# Commands.


def test_a_command_has_our_streams_and_our_code(farm: Farm) -> None:
    """Input, both outputs and the exit code are those of the command."""
    [id] = farm.grow(1)
    script = 'cat; echo "$#: $1"; echo error >&2; exit 42'
    done = farm.group("run", id, options=("--", "sh", "-c", script, "x", "a  'b'"), stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n1: a  'b'\n", "error\n")
    assert done.returncode == 42


def test_output_is_live_and_input_may_come_late(farm: Farm) -> None:
    """What the command writes is there at once, and what is typed gets to it at once."""
    [id] = farm.grow(1)
    process = farm.start("run", id, *farm.named, "--", "sh", "-c", "echo up; read x; echo $x")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.stdin.write("later\n")
    process.stdin.flush()
    assert process.stdout.readline() == "later\n"
    process.communicate()
    assert process.returncode == 0


def test_much_data_goes_both_ways(farm: Farm) -> None:
    """A copy through an instance is the same as what was sent."""
    [id] = farm.grow(1)
    data = "0123456789abcdef" * 200_000
    done = farm.group("run", id, options=("--", "cat"), stdin=data)
    assert done.returncode == 0
    assert done.stdout == data


def test_a_reader_that_has_had_enough_ends_it(farm: Farm) -> None:
    """After `| head` the command is ended, without a complaint."""
    [id] = farm.grow(1)
    process = farm.start("run", id, *farm.named, "--", "yes")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.wait(DEADLINE_SECONDS) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_an_interrupt_ends_the_command_there(farm: Farm, number: signal.Signals, code: int) -> None:
    """Ctrl-C, and a termination too, leave no command behind on the instance."""
    [id] = farm.grow(1)
    process = farm.start("run", id, *farm.named, "--", "sh", "-c", "echo $$; exec sleep 1000")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    eventually(lambda: not is_alive(pid))


def test_a_command_ended_by_a_signal(farm: Farm) -> None:
    """The exit code is what a shell says of such a command, and the signal is named."""
    [id] = farm.grow(1)
    done = farm.group("run", id, options=("--", "exec", "sh", "-c", "kill -KILL $$"))
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr == "the command was ended by the signal KILL\n"


def test_what_cannot_be_run_is_told(farm: Farm) -> None:
    """An instance that is not there, a key that is none, no command: each is a sentence."""
    done = farm.group("run", "local-0", options=("--", "true"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: there is no instance local-0 in group {farm.id}\n"
    assert "no command is given" in farm.group("run", "local-0").stderr
    [id] = farm.grow(1)
    key = ("--connector-config", "key_path=/proc/none")
    done = farm.group("run", id, options=(*key, "--", "true"))
    assert done.returncode == 2
    assert "the key file for instance" in done.stderr


def test_a_lost_instance_is_told(farm: Farm) -> None:
    """If the instance goes in the middle, how the command ended is not known."""
    [id] = farm.grow(1)
    process = farm.start("run", id, *farm.named, "--", "sh", "-c", "echo up; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    farm.group("decrease", id, "--yes")
    _, errors = process.communicate()
    assert process.returncode == 3
    assert errors.count("\n") == 1
    assert "is lost" in errors


# A shell.


@pytest.fixture
def shell(farm: Farm) -> Terminal:
    """Return a terminal that has become one of an instance."""
    [id] = farm.grow(1)
    terminal = farm.terminal("connect", id)
    terminal.read_until("$ " if os.geteuid() else "# ")
    return terminal


def test_a_shell_is_interactive(shell: Terminal) -> None:
    """It has the size of the window, follows it, and hears Ctrl-C; its exit code is ours."""
    shell.type("stty size; tty\r")
    assert "24 80\r\n/dev/" in shell.read_until("/dev/")
    shell.type("sh -c 'echo st\"\"arted; exec sleep 1000'\r")
    shell.read_until("started\r\n")
    shell.type("\x03")
    shell.resize(100, 30)
    shell.type("until stty size | grep '30 100'; do sleep 0.02; done; echo gr''own\r")
    shell.read_until("grown\r\n")
    assert not shell.is_restored()
    shell.type("exit 7\r")
    assert shell.process.wait(DEADLINE_SECONDS) == 7
    assert shell.is_restored()


def test_a_lost_shell_gives_the_terminal_back(farm: Farm, shell: Terminal) -> None:
    """If the instance goes away, that is one sentence on a line of its own, and exit code 3."""
    farm.group("decrease", farm.ids()[0], "--yes")
    assert shell.process.wait(DEADLINE_SECONDS) == 3
    assert shell.is_restored()
    assert "\r\nerror: the connection to instance" in shell.read_all()
    assert shell.text.count("error:") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(shell: Terminal, number: signal.Signals) -> None:
    """Whoever ends the command from elsewhere leaves a terminal that can be used."""
    shell.process.send_signal(number)
    assert shell.process.wait(DEADLINE_SECONDS) == 128 + number
    assert shell.is_restored()


def test_there_is_a_way_out(shell: Terminal) -> None:
    """Enter, a tilde and a period leave a shell in which nothing else is heard any more."""
    shell.type("trap '' INT HUP TERM; echo de''af; cat >/dev/null\r")
    shell.read_until("deaf\r\n")
    shell.type("\r~.")
    assert shell.process.wait(DEADLINE_SECONDS) == 0
    assert shell.is_restored()


def test_a_shell_needs_a_terminal(farm: Farm) -> None:
    """In a pipe there is none, and what to use instead is said before anything is opened."""
    done = farm.group("connect", "local-0")
    assert done.returncode == 2
    assert "fleeting group run ID -- COMMAND" in done.stderr


@pytest.mark.parametrize(
    ("typed", "passed", "leaves"),
    [
        (["ls ~.\r"], b"ls ~.\r", False),
        (["~."], b"", True),
        (["ls\r", "~", "."], b"ls\r", True),
        (["\n~.more"], b"\n", True),
        (["~~."], b"~.", False),
        (["~x~."], b"~x~.", False),
        (["~\r~."], b"~\r", True),
        (["a~."], b"a~.", False),
    ],
)
def test_the_keys_that_are_ours(typed: list[str], passed: bytes, *, leaves: bool) -> None:
    """Only a tilde at the start of a line means us; doubled, it is one for the instance."""
    keys = EscapeKeys()
    assert b"".join(keys.take(part.encode()) for part in typed) == passed
    assert keys.leaving is leaves


# Watching.


def test_changes_are_lines(farm: Farm) -> None:
    """In a pipe each change is a line, and Ctrl-C ends it well."""
    process = farm.start("watch", *farm.named, "--interval", "100ms")
    assert process.stdout is not None
    [id] = farm.grow(1)
    line = process.stdout.readline()
    assert f"Z {id}: new, " in line
    while "running" not in line:
        line = process.stdout.readline()
    farm.group("decrease", id, "--yes")
    while "gone" not in line:
        line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 0


def test_a_terminal_shows_a_table(farm: Farm) -> None:
    """It is drawn on a screen of its own, and the last one stays behind."""
    [id] = farm.grow(1)
    terminal = farm.terminal("watch", "--interval", "100ms")
    terminal.read_until(f"{id}: new, running")
    assert "1 instance (1 running)" in terminal.text
    farm.group("decrease", id, "--yes")
    terminal.read_until(f"{id}: gone")
    terminal.type("\x03")
    assert terminal.read_all().split("\x1b[?1049l")[-1].startswith(f"{farm.id}\r\n0 instances")
    assert terminal.process.wait() == 0


def test_every_difference_is_a_line() -> None:
    """What is new, other, gone, pending or failed is told, and nothing else."""
    before = Listing(
        (
            Instance("a", State.CREATING),
            Instance("b", State.RUNNING, incarnation="1"),
            Instance("c", State.RUNNING),
            Instance("d", State.RUNNING),
        )
    )
    after = Listing(
        (
            Instance("a", State.FAILED, reason="no\x1bdisk"),
            Instance("b", State.RUNNING, incarnation="2"),
            Instance("c", State.RUNNING, incarnation="now known"),
            Instance("e", State.CREATING),
        ),
        pending=2,
        failures=(OutOfCapacity("none left"),),
    )
    assert changes(before, after) == [
        r"a: creating -> failed (no\x1bdisk)",
        "b: another machine, running",
        "e: new, creating",
        "d: gone",
        "pending: 0 -> 2",
        "failure: none left",
    ]
    assert changes(after, Listing(after.instances, pending=2)) == []


def test_a_small_window_has_what_fits() -> None:
    """Lines are cut to the width, and the last one says how many are missing."""
    assert fitted(["abc", "de"], 2, 2) == ["ab", "de"]
    assert fitted(["a", "b", "c"], 80, 2) == ["a", "... 2 more lines"]
    assert fitted(["a", "b"], 80, 1) == ["... 2 more lines"]


@pytest.mark.anyio
async def test_notices_and_failures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What the group announces is a line at once; a listing that fails is one, and no more."""
    group = FakeInstanceGroup(capabilities=[Capability.WATCH])
    await group.increase(1, "one")
    [one] = (await group.update()).instances
    group.script("update", *(Reply(error=ProviderError("the cloud\nis away")) for _ in range(3)))
    deadline = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    group.announce(Notice(one.id, "to be sold\x1b", deadline))
    shown = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, selection(group), Duration(milliseconds=10))
        with anyio.fail_after(DEADLINE_SECONDS):
            while "new, running" not in shown or "taken away" not in shown:
                await anyio.sleep(0.01)
                shown += capsys.readouterr().out
        tasks.cancel_scope.cancel()
    away = rf"{one.id}: will be taken away: to be sold\x1b, at 03:04:05Z at the latest"
    assert away in shown
    assert shown.count(r"not listed: the cloud\nis away") == 1


@pytest.mark.anyio
async def test_what_no_trying_mends_ends_the_watch() -> None:
    """Credentials that are wrong will be so the next time."""
    group = FakeInstanceGroup()
    group.always("update", Reply(error=PermissionDenied("it may not list")))
    with pytest.raises(PermissionDenied):
        await watch(selection(group), Duration(seconds=1))
