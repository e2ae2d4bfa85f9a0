"""`fleeting group`: the status of a real group, changes of it, and its lock."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from fleeting._lock import driving
from fleeting._text import plain
from fleeting.cli._changes import increase, suspend_or_resume
from fleeting.cli._progress import IncreaseProgress, increase_progress
from fleeting.cli._signals import run_cancellable
from fleeting.cli._status import show_status
from fleeting.errors import OutOfCapacity, PermissionDenied, ProviderError
from fleeting.testing import FakeInstanceGroup, FakeProvider, Reply
from fleeting.types import (
    Accepted,
    Capability,
    CreationFailure,
    Duration,
    Instance,
    Listing,
    State,
)
from prepared_group import selected, selection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cli_command import Command
    from farm import Farm

FILE = """
[[runners]]
name = "one"
[runners.autoscaler]
plugin = "local"
[runners.autoscaler.plugin_config]
root = "{root}"
persistent = true

[[runners]]
name = "many"
[runners.autoscaler]
plugin = "local"
[[runners.autoscaler.extensions.group]]
name = "a"
[[runners.autoscaler.extensions.group]]
name = "b"
plugin_config = {{ max_size = 3 }}

[[runners]]
name = "empty"
[runners.autoscaler]
"""


# Status.


def test_status_is_a_table(farm: Farm) -> None:
    """The status describes the group, and has a line for each instance."""
    ids = farm.grow(2)
    lines = farm.group("status").stdout.splitlines()
    assert lines[0] == f"group:         {farm.id}"
    assert "driven by:     no process" in lines
    assert "size:          2 instances (2 running)" in lines
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["ID", "STATE"],
        *([id, "running"] for id in ids),
    ]


def test_status_as_json(farm: Farm) -> None:
    """`--json` prints the same, with all fields of the listing."""
    assert farm.status() == {
        "id": farm.id,
        "plugin": "local",
        "version": "1.0.0",
        "capabilities": [],
        "max_size": 8,
        "driven_by": None,
        "instances": [],
        "pending": 0,
        "failures": [],
    }
    [id] = farm.grow(1)
    [one] = farm.status()["instances"]
    assert one == {"id": id, "state": "running", "incarnation": id, "reason": None}


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in an id, a reason or a failure do not reach the terminal."""
    group = FakeInstanceGroup(id="fake/\x1b[2J")
    bad = Instance("i-\x1b]0;x\x07", State.FAILED, reason="a\nb\u202ec")
    failure = ProviderError("no\r\x9b2K")
    group.always(
        "update",
        Reply(listing=lambda _: Listing((bad,), failures=(CreationFailure("1", failure),))),
    )
    assert run_cancellable(show_status, selection(group), as_json=False) == 0
    shown = capsys.readouterr().out
    assert r"fake/\x1b[2J" in shown
    assert r"i-\x1b]0;x\x07" in shown
    assert r"a b\u202ec" in shown
    assert r"no\r\x9b2K" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_plain_leaves_text_alone() -> None:
    """Printable text in every script is unchanged."""
    assert plain("grüße, 世界") == "grüße, 世界"
    assert plain("a\tb\udc80") == r"a\tb\udc80"


# Selecting a group.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no group given; use --plugin NAME"),
        (["--plugin", "local", "-c", "f"], "got both a plugin (local) and a config file (f)"),
        (
            ["-c", "f", "--plugin-config", "a=1"],
            "--plugin-config cannot be combined with a config file (f)",
        ),
        (["--plugin", "local", "--runner", "x"], "--runner x needs a config file"),
        (["--plugin-config", "a=1"], "no group given"),
        (["--plugin", "nimbus"], "no plugin named 'nimbus' is installed"),
        (["--plugin", "local:9"], "'local:9' was requested"),
        (["--plugin", "local", "--plugin-config", "rot=1"], "rot: unknown key; did you mean"),
        (["--plugin", "local", "--plugin-config", "secret"], "is not KEY=VALUE"),
        (["--plugin", "local", "--plugin-config", "root=/proc/x"], "/proc/x cannot be used"),
        (["-c", "missing.toml"], "missing.toml: the file does not exist"),
    ],
)
def test_invalid_selection(farm: Farm, words: list[str], expected: str) -> None:
    """Invalid options are one message, with exit code 2 and no traceback."""
    done = farm.run("group", "status", *words)
    assert done.returncode == 2
    line, *more = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert more in ([], ["See `fleeting group status --help`."])


def test_group_of_a_file(farm: Farm) -> None:
    """`--runner` selects a group of a file; `RUNNER/GROUP` selects one of several."""
    path = farm.folder / "config.toml"
    path.write_text(FILE.format(root=farm.folder / "farm"))
    farm.grow(1)

    def status(*words: str) -> str:
        done = farm.run("group", "status", "-c", path, *words)
        return done.stdout + done.stderr

    assert f"group:         {farm.id}\n" in status("--runner", "one")
    assert "1 instance (1 running)" in status("--runner", "one")
    assert "maximum size:  3" in status("--runner", "many/b")
    assert "the file has: 'one', 'many/a', 'many/b', 'empty'" in status("--runner", "many")
    assert "4 groups; choose one" in status()
    assert "no plugin given" in status("--runner", "empty")


# Changes.


def test_increase_reports_what_was_accepted(farm: Farm) -> None:
    """Accepted instances are shown with their ids, the others with the reason and code 1."""
    done = farm.group("increase", "3")
    assert done.returncode == 0
    assert done.stdout == f"accepted: 3 of 3: {' '.join(done.stdout.split()[-3:])}\n"
    assert sorted(done.stdout.split()[-3:]) == farm.ids()
    done = farm.group("increase", "6")
    assert done.returncode == 1
    assert done.stdout.startswith("accepted: 5 of 6: ")
    assert done.stderr.startswith("not accepted: 1: ")
    assert "raise max_size" in done.stderr
    assert farm.group("increase", "0").returncode == 2


def test_wait_reports_failed_instances(farm: Farm) -> None:
    """`--wait` shows instances that fail to start, with exit code 1."""
    done = farm.group("increase", "2", "--wait", options=("--plugin-config", "fail_rate=1.0"))
    assert done.returncode == 1
    assert done.stderr.count("failed: local-") == 2
    assert "fail_rate chose it to fail" in done.stderr


def test_wait_times_out(farm: Farm) -> None:
    """`--wait` ends after the timeout, with exit code 1."""
    slow = ("--plugin-config", "boot_delay=1h")
    done = farm.group("increase", "1", "--wait", "--timeout", "200ms", options=slow)
    assert done.returncode == 1
    assert "not running after 0.2s: 1" in done.stderr


NEW = Instance("new", State.RUNNING)
OLD = Instance("old", State.RUNNING)
EARLIER, NONE_LEFT = (CreationFailure(id, OutOfCapacity("none left")) for id in ("1", "2"))


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        (Listing((OLD,)), IncreaseProgress((), (), 2)),
        (Listing((OLD, NEW), pending=1), IncreaseProgress(("new",), (), 1)),
        (Listing((Instance("new", State.CREATING),)), IncreaseProgress((), (), 2)),
        (Listing((NEW, Instance("b", State.RUNNING))), IncreaseProgress(("b", "new"), (), 0)),
        (
            Listing((NEW, bad := Instance("b", State.FAILED))),
            IncreaseProgress(("new",), (bad,), 0),
        ),
        (Listing((NEW,), failures=(NONE_LEFT,)), IncreaseProgress(("new",), (), 0, (NONE_LEFT,))),
        (
            Listing((NEW,), pending=1, failures=(EARLIER, NONE_LEFT)),
            IncreaseProgress(("new",), (), 1, (NONE_LEFT,)),
        ),
        (Listing((NEW,), failures=(EARLIER,)), IncreaseProgress(("new",), (), 1)),
    ],
)
def test_increase_progress(listing: Listing, expected: IncreaseProgress) -> None:
    """New running instances count, old ones do not, and failed ones are not waited for."""
    before = Listing((OLD,), failures=(EARLIER,))
    assert increase_progress(before, Accepted(2), listing) == expected


def test_instances_of_others_do_not_count() -> None:
    """If the increase returned ids, only those instances count."""
    listing = Listing((NEW, Instance("theirs", State.RUNNING)))
    assert increase_progress(Listing(), Accepted(2, ("new", "mine")), listing) == IncreaseProgress(
        ("new",), (), 1
    )


def test_decrease_needs_confirmation(farm: Farm) -> None:
    """Without a terminal and `--yes`, nothing is removed, with exit code 2."""
    ids = farm.grow(2)
    done = farm.group("decrease", ids[0])
    assert done.returncode == 2
    assert "use --yes" in done.stderr
    assert farm.ids() == ids
    done = farm.group("decrease", ids[0], "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:2] == [ids[0], "running"]
    assert "accepted: 1 of 1\n" in done.stdout
    assert farm.ids() == ids[1:]


def test_decrease_is_idempotent(farm: Farm) -> None:
    """An unknown instance counts as removed, and is reported as not listed."""
    done = farm.group("decrease", "local-000000000000", "--yes")
    assert done.returncode == 0
    assert "does not list instance local-000000000000" in done.stderr


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x03", 130)])
def test_decrease_asks_on_a_terminal(farm: Farm, answer: str, code: int) -> None:
    """It shows the instances, and removes them only after a yes; Ctrl-C interrupts it."""
    [id] = farm.grow(1)
    terminal = farm.terminal("decrease", id)
    shown = terminal.read_until("[y/N] ")
    assert f"{id}  running" in shown
    terminal.type(answer)
    terminal.read_all()
    assert terminal.process.wait() == code
    assert farm.ids() == ([] if code == 0 else [id])


def test_suspend_without_the_capability(farm: Farm) -> None:
    """A group without the capability is not asked to suspend or resume."""
    for verb in ("suspend", "resume"):
        done = farm.group(verb, "local-1")
        assert done.returncode == 2
        assert f"cannot {verb} instances" in done.stderr


def test_suspend_and_resume(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A group with the capability suspends and resumes instances."""
    group = FakeInstanceGroup(capabilities=[Capability.SUSPEND])
    chosen = selection(group)
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path))
    assert run_cancellable(increase, chosen, 1, force=False, wait=Duration(minutes=1)) == 0
    [id] = [line.split()[-1] for line in capsys.readouterr().out.splitlines()][:1]
    for verb in ("suspend", "resume"):
        limit = Duration(minutes=1)
        assert run_cancellable(suspend_or_resume, chosen, verb, [id], force=False, limit=limit) == 0
        state = "suspended" if verb == "suspend" else "running"
        assert capsys.readouterr().out == f"accepted: 1 of 1\n{state}: {id}\n"
    assert [call.method for call in group.calls if call.ids] == ["suspend", "resume"]


class InSteps(FakeInstanceGroup):
    """Suspends an instance in two steps; the second one is taken by who drives the group."""

    @override
    async def suspend(self, ids: Sequence[str]) -> Accepted:
        accepted = await super().suspend(ids)
        for one in self.listing.instances:
            if one.id in ids:
                self.set_state(one.id, State.SUSPENDING)
        return accepted

    @override
    async def reconcile(self, listing: Listing) -> None:
        await super().reconcile(listing)
        for one in listing.instances:
            if one.state is State.SUSPENDING:
                self.set_state(one.id, State.SUSPENDED)


def test_suspend_waits_until_it_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`suspend` takes every step; a command that does not hold the lock takes none."""
    group = InSteps(capabilities=[Capability.SUSPEND])
    group.info = replace(group.info, private=False)
    chosen = selection(group)
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path))
    monkeypatch.setattr("fleeting.cli._changes.WAIT_INTERVAL_SECONDS", 0.01)
    forced, own = group.add(), group.add()

    def suspend(id: str, **options: Any) -> int:
        return run_cancellable(suspend_or_resume, chosen, "suspend", [id], **options)

    assert suspend(own, force=False, limit=Duration(minutes=1)) == 0
    assert capsys.readouterr().out == f"accepted: 1 of 1\nsuspended: {own}\n"
    with driving(group.info.id, "a manager"):
        assert suspend(forced, force=True, limit=Duration(milliseconds=100)) == 1
    assert f"not suspended after 0.1s: {forced}; repeat" in capsys.readouterr().err
    group.vanish(own)
    assert suspend(own, force=False, limit=Duration(minutes=1)) == 1
    assert f"failed: {own}: it is gone" in capsys.readouterr().err


def test_suspend_that_is_refused_later(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If a later step is refused for good, the command waits until the instance runs again."""
    group = FakeInstanceGroup(capabilities=[Capability.SUSPEND])
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path))
    monkeypatch.setattr("fleeting.cli._changes.WAIT_INTERVAL_SECONDS", 0.01)
    id = group.add()
    states = iter([State.RUNNING, State.SUSPENDING, State.SUSPENDING])

    def shown(_: Listing) -> Listing:
        return Listing((Instance(id, next(states, State.RUNNING)),))

    group.always("update", Reply(listing=shown))
    group.script("reconcile", Reply(error=PermissionDenied("it cannot be stopped")))
    limit = Duration(minutes=1)
    chosen = selection(group)
    assert (
        run_cancellable(suspend_or_resume, chosen, "suspend", [id], force=False, limit=limit) == 1
    )
    assert capsys.readouterr().err == (f"warning: it cannot be stopped\nfailed: {id}: running\n")


# The lock.


def test_group_of_a_manager_is_not_changed(farm: Farm, taskscaler: Command, fifo: Path) -> None:
    """While `taskscaler run` drives the group, a command changes it only with `--force`."""
    [mine] = farm.grow(1)
    words = ("--max-instances", "2", "--", "sh", "-c", f"echo up; cat {fifo}")
    running = taskscaler.start(*farm.named, *words)
    assert running.stdout is not None
    assert b"up" in running.stdout.readline()
    assert f"process {running.pid} on " in farm.status()["driven_by"]
    for change in (("increase", "1"), ("decrease", mine, "--yes")):
        done = farm.group(*change)
        assert done.returncode == 3
        assert f"(process {running.pid} on " in done.stderr
        assert "taskscaler run); stop that process first, or use --force" in done.stderr
    done = farm.remote(mine, "echo", "read-only")
    assert done.stdout == "read-only\n"
    done = farm.group("decrease", mine, "--yes", "--force")
    assert done.returncode == 0
    assert f"warning: group {farm.id} is driven by process {running.pid} on " in done.stderr
    fifo.write_text("go on\n")
    assert running.wait() == 0
    assert farm.status()["driven_by"] is None
    assert list(farm.locks.iterdir()) == []


def test_manager_needs_the_lock(farm: Farm, taskscaler: Command) -> None:
    """`taskscaler run` exits with 3 and names the holder if another process has the lock."""
    with driving(farm.id, "another manager"):
        done = taskscaler.run_jobs(*farm.named, "--", "true")
    assert done.returncode == 3
    assert f"error: group {farm.id} is driven by another process now (process" in done.stderr
    assert "another manager); " in done.stderr
    assert taskscaler.run_jobs(*farm.named, "--", "true").returncode == 0


def test_group_that_is_configured_twice(farm: Farm, taskscaler: Command) -> None:
    """Two groups of a file that are the same group are refused."""
    path = farm.folder / "twice.toml"
    path.write_text(
        '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "local"\n'
        f'plugin_config = {{ root = "{farm.folder / "farm"}", persistent = true }}\n'
        "[runners.autoscaler.state_storage]\nenabled = false\n"
        "[[runners.autoscaler.extensions.group]]\n[[runners.autoscaler.extensions.group]]\n"
        "plugin_config = { max_size = 3 }\n"
    )
    done = taskscaler.run_jobs("--config", path, "--", "true")
    assert done.returncode == 2
    assert f"{farm.id} is configured twice; remove one of them" in done.stderr


def test_temporary_groups_do_not_conflict(farm: Farm) -> None:
    """Groups that exist only as long as their processes have different locks."""
    alone = ("--plugin", "local")
    first = farm.start("watch", *alone)
    done = farm.run("group", "increase", "1", *alone)
    assert done.returncode == 0
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert json.loads(farm.run("group", "status", "--json", *alone).stdout)["instances"] == []


# Faults of plugins.


def test_call_without_an_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that does not return ends after its deadline."""
    monkeypatch.setattr("fleeting.cli._open_group.CALL_SECONDS", 0.05)
    group = FakeInstanceGroup()
    group.always("update", Reply(before=Duration(hours=1)))
    with pytest.raises(ProviderError, match=r"did not list its instances within 0\.05 s"):
        run_cancellable(show_status, selection(group), as_json=False)


def test_unexpected_error_is_a_bug_of_the_plugin() -> None:
    """An unexpected error of a call or of the opening is reported as a bug of the plugin."""
    group = FakeInstanceGroup()

    def spoil(_: Listing) -> Listing:
        raise ZeroDivisionError("once\nmore")

    group.always("update", Reply(listing=spoil))
    with pytest.raises(ProviderError, match=r"a bug \(ZeroDivisionError: once more\); report"):
        run_cancellable(show_status, selection(group), as_json=False)
    provider = FakeProvider()
    provider.errors.append(KeyError("region"))
    with pytest.raises(ProviderError, match="plugin fake did not open: the plugin has a bug"):
        run_cancellable(show_status, selected(provider), as_json=False)
