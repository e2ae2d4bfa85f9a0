"""`fleeting group`: looking at a real group and changing it by hand, and who else drives it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from fleeting._lock import driving
from fleeting._text import plain
from fleeting.cli._changes import increase, suspend_or_resume
from fleeting.cli._progress import IncreaseProgress, increase_progress
from fleeting.cli._signals import run_cancellable
from fleeting.cli._status import show_status
from fleeting.errors import OutOfCapacity, ProviderError
from fleeting.testing import FakeInstanceGroup, FakeProvider, Reply
from fleeting.types import (
    Accepted,
    Capability,
    Duration,
    GroupSettings,
    Instance,
    Listing,
    State,
)
from prepared_group import selection

if TYPE_CHECKING:
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
name = "nobody"
[runners.autoscaler]
"""


# Looking.


def test_status_is_a_table(farm: Farm) -> None:
    """A person sees what the group is, and a line for each instance with its state."""
    ids = farm.grow(2)
    lines = farm.group("status").stdout.splitlines()
    assert lines[0] == f"group:         {farm.id}"
    assert "driven by:     nobody" in lines
    assert "size:          2 instances (2 running)" in lines
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["ID", "STATE"],
        *([id, "running"] for id in ids),
    ]


def test_status_as_json(farm: Farm) -> None:
    """A script reads the same, with everything that the listing says."""
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


def test_what_a_cloud_says_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters of an id, a reason or a failure are spelled out."""
    group = FakeInstanceGroup(id="fake/\x1b[2J")
    bad = Instance("i-\x1b]0;x\x07", State.FAILED, reason="a\nb\u202ec")
    failure = ProviderError("no\r\x9b2K")
    group.always("update", Reply(listing=lambda _: Listing((bad,), failures=(failure,))))
    assert run_cancellable(show_status, selection(group), as_json=False) == 0
    shown = capsys.readouterr().out
    assert r"fake/\x1b[2J" in shown
    assert r"i-\x1b]0;x\x07" in shown
    assert r"a\nb\u202ec" in shown
    assert r"no\r\x9b2K" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_plain_leaves_text_alone() -> None:
    """What can be printed stays as it is, in every script."""
    assert plain("grüße, 世界") == "grüße, 世界"
    assert plain("a\tb\udc80") == r"a\tb\udc80"


# How a group is named.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no group is named; give --plugin NAME"),
        (["--plugin", "local", "-c", "f"], "both a plugin (local) and a file (f) are given"),
        (["-c", "f", "--plugin-config", "a=1"], "--plugin-config belongs to a plugin"),
        (["--plugin", "local", "--runner", "x"], "--runner x names a runner of a file"),
        (["--plugin-config", "a=1"], "no group is named"),
        (["--plugin", "nimbus"], "no plugin named 'nimbus' is installed"),
        (["--plugin", "local:9"], "'local:9' is asked for"),
        (["--plugin", "local", "--plugin-config", "rot=1"], "rot: unknown key; did you mean"),
        (["--plugin", "local", "--plugin-config", "secret"], "is not KEY=VALUE"),
        (["--plugin", "local", "--plugin-config", "root=/proc/x"], "/proc/x cannot be used"),
        (["-c", "missing.toml"], "missing.toml: there is no such file"),
    ],
)
def test_a_group_that_is_not_named_well(farm: Farm, words: list[str], expected: str) -> None:
    """Each mistake is one sentence, with exit code 2, and no traceback."""
    done = farm.run("group", "status", *words)
    assert done.returncode == 2
    line, *more = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert more in ([], ["See `fleeting group status --help`."])


def test_a_group_of_a_file(farm: Farm) -> None:
    """A runner of a file names the group, and one of several is named after a slash."""
    path = farm.folder / "config.toml"
    path.write_text(FILE.format(root=farm.folder / "farm"))
    farm.grow(1)

    def named(*words: str) -> str:
        done = farm.run("group", "status", "-c", path, *words)
        return done.stdout + done.stderr

    assert f"group:         {farm.id}\n" in named("--runner", "one")
    assert "1 instance (1 running)" in named("--runner", "one")
    assert "maximum size:  3" in named("--runner", "many/b")
    assert "there are: 'one', 'many/a', 'many/b', 'nobody'" in named("--runner", "many")
    assert "4 groups; say which" in named()
    assert "no plugin is named" in named("--runner", "nobody")


# Changing.


def test_increase_says_what_was_accepted(farm: Farm) -> None:
    """What the group takes is told with ids; the rest with its reason, and exit code 1."""
    done = farm.group("increase", "3")
    assert done.returncode == 0
    assert done.stdout == f"accepted: 3 of 3 more: {' '.join(done.stdout.split()[-3:])}\n"
    assert sorted(done.stdout.split()[-3:]) == farm.ids()
    done = farm.group("increase", "6")
    assert done.returncode == 1
    assert done.stdout.startswith("accepted: 5 of 6 more: ")
    assert done.stderr.startswith("not accepted: 1: ")
    assert "raise max_size" in done.stderr
    assert farm.group("increase", "0").returncode == 2


def test_waiting_for_instances_that_do_not_come(farm: Farm) -> None:
    """`--wait` tells of those that fail, and the exit code says that not all is well."""
    done = farm.group("increase", "2", "--wait", options=("--plugin-config", "fail_rate=1.0"))
    assert done.returncode == 1
    assert done.stderr.count("failed: local-") == 2
    assert "fail_rate chose it to fail" in done.stderr


def test_waiting_ends(farm: Farm) -> None:
    """Who waits for slow instances gets an answer when the time is up."""
    slow = ("--plugin-config", "boot_delay=1h")
    done = farm.group("increase", "1", "--wait", "--timeout", "1s", options=slow)
    assert done.returncode == 1
    assert "not running after 1s: 1" in done.stderr


NEW = Instance("new", State.RUNNING)
OLD = Instance("old", State.RUNNING)


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
        (
            Listing((NEW,), failures=(OutOfCapacity("none left"),)),
            IncreaseProgress(("new",), (), 0, ("none left",)),
        ),
        (
            Listing((NEW,), pending=1, failures=(OutOfCapacity("none yet"),)),
            IncreaseProgress(("new",), (), 1, ("none yet",)),
        ),
    ],
)
def test_what_becomes_of_an_increase(listing: Listing, expected: IncreaseProgress) -> None:
    """New instances that run count, old ones do not, and who failed is not waited for."""
    assert increase_progress({"old"}, Accepted(2), listing) == expected


def test_where_the_cloud_names_them_others_do_not_count() -> None:
    """An instance that somebody else has asked for at the same time is not ours."""
    others = Listing((NEW, Instance("theirs", State.RUNNING)))
    assert increase_progress((), Accepted(2, ("new", "mine")), others) == IncreaseProgress(
        ("new",), (), 1
    )


def test_decrease_needs_consent(farm: Farm) -> None:
    """Without a terminal and without `--yes` nothing is removed, and the exit code is 2."""
    ids = farm.grow(2)
    done = farm.group("decrease", ids[0])
    assert done.returncode == 2
    assert "add --yes" in done.stderr
    assert farm.ids() == ids
    done = farm.group("decrease", ids[0], "--yes")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:2] == [ids[0], "running"]
    assert "accepted: 1 of 1 to be removed" in done.stdout
    assert farm.ids() == ids[1:]


def test_decrease_is_idempotent(farm: Farm) -> None:
    """What is gone already counts as removed, and it is said that it was not there."""
    done = farm.group("decrease", "local-000000000000", "--yes")
    assert done.returncode == 0
    assert "lists no instance local-000000000000" in done.stderr


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("\x03", 130)])
def test_decrease_asks_on_a_terminal(farm: Farm, answer: str, code: int) -> None:
    """It shows what it will remove, and does so only after a yes; Ctrl-C is heard, too."""
    [id] = farm.grow(1)
    terminal = farm.terminal("decrease", id)
    shown = terminal.read_until("[y/N] ")
    assert f"{id}  running" in shown
    terminal.type(answer)
    terminal.read_all()
    assert terminal.process.wait() == code
    assert farm.ids() == ([] if code == 0 else [id])


def test_a_group_that_cannot_suspend_says_so(farm: Farm) -> None:
    """Nothing is tried where the group has not the capability."""
    for verb in ("suspend", "resume"):
        done = farm.group(verb, "local-1")
        assert done.returncode == 3
        assert f"cannot {verb} instances" in done.stderr


def test_suspend_and_resume(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where the group can, instances are stopped and started again."""
    group = FakeInstanceGroup(capabilities=[Capability.SUSPEND])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETING_LOCK_DIR", str(tmp_path))
        assert (
            run_cancellable(increase, selection(group), 1, force=False, wait=Duration(minutes=1))
            == 0
        )
        [id] = [call.split()[-1] for call in capsys.readouterr().out.splitlines()][:1]
        assert (
            run_cancellable(suspend_or_resume, selection(group), "suspend", [id], force=False) == 0
        )
        assert (
            run_cancellable(suspend_or_resume, selection(group), "resume", [id], force=False) == 0
        )
        assert "1 of 1 to be resumed" in capsys.readouterr().out
    assert [call.method for call in group.calls if call.ids] == ["suspend", "resume"]


# Who drives it.


def test_a_group_that_is_driven_is_left_alone(farm: Farm, taskscaler: Command, fifo: Path) -> None:
    """While `taskscaler run` has the group, a hand can look and not change, unless it is forced."""
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
        assert "taskscaler run); stop that one first, or repeat this with --force" in done.stderr
    done = farm.group("run", mine, options=("--", "echo", "read-only"))
    assert done.stdout == "read-only\n"
    done = farm.group("decrease", mine, "--yes", "--force")
    assert done.returncode == 0
    assert f"warning: group {farm.id} is driven by process {running.pid} on " in done.stderr
    fifo.write_text("go on\n")
    assert running.wait() == 0
    assert farm.status()["driven_by"] is None
    assert list(farm.locks.iterdir()) == []


def test_a_manager_does_not_start_where_another_is(farm: Farm, taskscaler: Command) -> None:
    """`taskscaler run` takes the lock, too, and ends with 3 and the holder's name without it."""
    with driving(farm.id, "somebody's hand"):
        done = taskscaler.run_jobs(*farm.named, "--", "true")
    assert done.returncode == 3
    assert f"error: group {farm.id} is driven by another process now (process" in done.stderr
    assert "somebody's hand); stop that one first" in done.stderr
    assert taskscaler.run_jobs(*farm.named, "--", "true").returncode == 0


def test_a_group_that_is_listed_twice_is_wrong(farm: Farm, taskscaler: Command) -> None:
    """Two groups of a file that turn out to be one are refused, as one would be counted twice."""
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
    assert f"group '2' (plugin local) cannot be opened: {farm.id} is in the list" in done.stderr


def test_a_group_of_its_own_conflicts_with_nobody(farm: Farm) -> None:
    """Two groups that live and die with their processes have nothing to do with each other."""
    alone = ("--plugin", "local")
    first = farm.start("watch", *alone)
    done = farm.run("group", "increase", "1", *alone)
    assert done.returncode == 0
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert json.loads(farm.run("group", "status", "--json", *alone).stdout)["instances"] == []


# What a plugin does wrong.


def test_a_call_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud that does not answer is no reason to wait for ever."""
    monkeypatch.setattr("fleeting.cli._open_group.CALL_SECONDS", 0.05)
    group = FakeInstanceGroup()
    group.always("update", Reply(before=Duration(hours=1)))
    with pytest.raises(ProviderError, match=r"did not list its instances within 0\.05 s"):
        run_cancellable(show_status, selection(group), as_json=False)


def test_a_bug_of_a_plugin_is_a_sentence() -> None:
    """What a plugin may not raise is told as its bug, from a call and from the opening."""
    group = FakeInstanceGroup()

    def spoil(_: Listing) -> Listing:
        raise ZeroDivisionError("once\nmore")

    group.always("update", Reply(listing=spoil))
    with pytest.raises(ProviderError, match=r"a bug \(ZeroDivisionError: once more\); tell"):
        run_cancellable(show_status, selection(group), as_json=False)
    provider = FakeProvider()
    provider.errors.append(KeyError("region"))
    broken = Target(
        "plugin fake", provider, provider.config_type(), GroupSettings(), "--plugin fake"
    )
    with pytest.raises(ProviderError, match="plugin fake did not open: the plugin has a bug"):
        run_cancellable(show_status, broken, as_json=False)
