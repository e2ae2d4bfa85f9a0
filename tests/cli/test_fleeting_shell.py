"""`fleeting group run`, `connect` and `watch` on real instances."""

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
from fleeting.types import Capability, CreationFailure, Duration, Instance, Listing, Notice, State
from prepared_group import selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from farm import Farm
    from own_terminal import Terminal

DEADLINE_SECONDS = 30


def eventually(is_true: Callable[[], bool]) -> None:
    """Wait for a change in another process that sends no event."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process exists."""
    return Path(f"/proc/{pid}").exists()


# Commands.


def test_streams_and_exit_code_of_a_command(shared_farm: Farm, instance_id: str) -> None:
    """The command has our input, and we have its output, its errors and its exit code."""
    script = 'cat; echo "$#: $1"; echo error >&2; exit 42'
    done = shared_farm.remote(instance_id, "sh", "-c", script, "x", "a  'b'", stdin="in\n")
    assert (done.stdout, done.stderr) == ("in\n1: a  'b'\n", "error\n")
    assert done.returncode == 42


def test_input_and_output_are_live(shared_farm: Farm, instance_id: str) -> None:
    """Output arrives while the command runs, and so does input."""
    process = shared_farm.start_remote(instance_id, "sh", "-c", "echo up; read x; echo $x")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.stdin.write("later\n")
    process.stdin.flush()
    assert process.stdout.readline() == "later\n"
    process.communicate()
    assert process.returncode == 0


def test_large_data_in_both_directions(shared_farm: Farm, instance_id: str) -> None:
    """Data that is echoed by an instance comes back unchanged."""
    data = "0123456789abcdef" * 200_000
    done = shared_farm.remote(instance_id, "cat", stdin=data)
    assert done.returncode == 0
    assert done.stdout == data


def test_closed_output_ends_the_command(shared_farm: Farm, instance_id: str) -> None:
    """If the reader closes the pipe, as `| head` does, the command ends without a message."""
    process = shared_farm.start_remote(instance_id, "yes")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "y\n"
    process.stdout.close()
    assert process.wait(DEADLINE_SECONDS) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_interrupt_ends_the_remote_command(
    shared_farm: Farm, instance_id: str, number: signal.Signals, code: int
) -> None:
    """Ctrl-C and SIGTERM leave no command behind on the instance."""
    process = shared_farm.start_remote(instance_id, "sh", "-c", "echo $$; exec sleep 1000")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    eventually(lambda: not is_alive(pid))


def test_command_ended_by_a_signal(shared_farm: Farm, instance_id: str) -> None:
    """The exit code is 128 and the number of the signal, which is named."""
    done = shared_farm.remote(instance_id, "exec", "sh", "-c", "kill -KILL $$")
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr == "the command was ended by signal KILL\n"


def test_command_that_cannot_be_run(shared_farm: Farm, instance_id: str) -> None:
    """An unknown instance, an unreadable key and a missing command are one message each."""
    done = shared_farm.group("run", "local-0", options=("--", "true"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: there is no instance local-0 in group {shared_farm.id}\n"
    assert "no command given" in shared_farm.group("run", "local-0").stderr
    key = ("--connector-config", "key_path=/proc/none")
    done = shared_farm.group("run", instance_id, options=(*key, "--", "true"))
    assert done.returncode == 2
    assert "connector_config.key_path: /proc/none cannot be read" in done.stderr


def test_lost_instance(shared_farm: Farm, instance_id: str) -> None:
    """If the instance disappears while a command runs, the exit code is 3."""
    process = shared_farm.start_remote(instance_id, "sh", "-c", "echo up; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    shared_farm.group("decrease", instance_id, "--yes")
    _, errors = process.communicate()
    assert process.returncode == 3
    assert errors.count("\n") == 1
    assert "is lost" in errors


# A shell.


@pytest.fixture
def shell(shared_farm: Farm, instance_id: str) -> Terminal:
    """Return a terminal that is connected to an instance."""
    terminal = shared_farm.terminal("connect", instance_id)
    terminal.read_until("$ " if os.geteuid() else "# ")
    return terminal


def test_shell_is_interactive(shell: Terminal) -> None:
    """The shell has the size of the window and gets Ctrl-C; its exit code is ours."""
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


def test_lost_shell_restores_the_terminal(shared_farm: Farm, shell: Terminal) -> None:
    """If the instance disappears, there is one message on its own line, and exit code 3."""
    shared_farm.group("decrease", *shared_farm.ids(), "--yes")
    assert shell.process.wait(DEADLINE_SECONDS) == 3
    assert shell.is_restored()
    assert "\r\nerror: the connection to instance" in shell.read_all()
    assert shell.text.count("error:") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_restores_the_terminal(shell: Terminal, number: signal.Signals) -> None:
    """A signal that ends the command leaves a usable terminal."""
    shell.process.send_signal(number)
    assert shell.process.wait(DEADLINE_SECONDS) == 128 + number
    assert shell.is_restored()


def test_escape_sequence_leaves_a_deaf_shell(shell: Terminal) -> None:
    """Enter, a tilde and a period leave a shell that ignores all signals."""
    shell.type("trap '' INT HUP TERM; echo de''af; cat >/dev/null\r")
    shell.read_until("deaf\r\n")
    shell.type("\r~.")
    assert shell.process.wait(DEADLINE_SECONDS) == 0
    assert shell.is_restored()


def test_shell_needs_a_terminal(shared_farm: Farm) -> None:
    """Without a terminal the message names the command to use instead."""
    done = shared_farm.group("connect", "local-0")
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
def test_escape_sequence(typed: list[str], passed: bytes, *, leaves: bool) -> None:
    """Only a tilde at the start of a line is special; a doubled one is passed on as one."""
    keys = EscapeKeys()
    assert b"".join(keys.take(part.encode()) for part in typed) == passed
    assert keys.leaving is leaves


# Watching.


def test_watch_without_a_terminal(farm: Farm) -> None:
    """In a pipe each change is a line, and Ctrl-C ends the watch with code 0."""
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


def test_watch_on_a_terminal(farm: Farm) -> None:
    """The table is drawn on the alternate screen, and the last one is printed at the end."""
    [id] = farm.grow(1)
    terminal = farm.terminal("watch", "--interval", "100ms")
    terminal.read_until(f"{id}: new, running")
    assert "1 instance (1 running)" in terminal.text
    farm.group("decrease", id, "--yes")
    terminal.read_until(f"{id}: gone")
    terminal.type("\x03")
    assert terminal.read_all().split("\x1b[?1049l")[-1].startswith(f"{farm.id}\r\n0 instances")
    assert terminal.process.wait() == 0


def test_changes_between_listings() -> None:
    """New, changed, removed, pending and failed instances are lines, and nothing else."""
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
        failures=(CreationFailure("1", OutOfCapacity("none left")),),
    )
    assert changes(before, after) == [
        r"a: creating -> failed (no\x1bdisk)",
        "b: recreated, running",
        "e: new, creating",
        "d: gone",
        "pending: 0 -> 2",
        "failure: none left",
    ]
    assert changes(after, Listing(after.instances, pending=2)) == []


def test_lines_are_cut_to_the_window() -> None:
    """Lines are cut to the width, and the last one counts the missing lines."""
    assert fitted(["abc", "de"], 2, 2) == ["ab", "de"]
    assert fitted(["a", "b", "c"], 80, 2) == ["a", "... 2 more lines"]
    assert fitted(["a", "b"], 80, 1) == ["... 2 more lines"]


@pytest.mark.anyio
async def test_notices_and_failures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A notice is a line, and repeated failures of the listing are one line."""
    group = FakeInstanceGroup(capabilities=[Capability.WATCH])
    await group.increase(1, "one")
    [one] = (await group.update()).instances
    group.script("update", *(Reply(error=ProviderError("the cloud\nis away")) for _ in range(3)))
    deadline = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    group.announce(Notice(one.id, "spot price\x1b", deadline))
    shown = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, selection(group), Duration(milliseconds=10))
        with anyio.fail_after(DEADLINE_SECONDS):
            while "new, running" not in shown or "interrupted" not in shown:
                await anyio.sleep(0.01)
                shown += capsys.readouterr().out
        tasks.cancel_scope.cancel()
    assert rf"{one.id}: will be interrupted: spot price\x1b, by 03:04:05Z" in shown
    assert shown.count(r"listing failed: the cloud\nis away") == 1


@pytest.mark.anyio
async def test_permanent_failure_ends_the_watch() -> None:
    """An error that is not retryable ends the watch."""
    group = FakeInstanceGroup()
    group.always("update", Reply(error=PermissionDenied("it may not list")))
    with pytest.raises(PermissionDenied):
        await watch(selection(group), Duration(seconds=1))
