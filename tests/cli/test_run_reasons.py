"""`taskscaler run` tells within seconds why no instance gets ready, and when a group is gone."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli_command import Command


def config_of(command: Command, connector: str = "", extensions: str = "") -> Path:
    """Write a config.toml with one runner on the local provider."""
    path = command.folder / "config.toml"
    path.write_text(f"""
[[runners]]
name = "builders"
[runners.autoscaler]
plugin = "local"
capacity_per_instance = 1
max_instances = 2
delete_instances_on_shutdown = true
[runners.autoscaler.connector_config]
{connector}
[runners.autoscaler.state_storage]
enabled = false
[runners.autoscaler.extensions]
{extensions}
""")
    return path


def told(process: subprocess.Popen[bytes], *texts: bytes) -> str:
    """Read standard error until a line has all texts; return it."""
    assert process.stderr is not None
    for line in process.stderr:
        if all(text in line for text in texts):
            return line.decode()
    pytest.fail(f"{texts!r} never came")


def end(process: subprocess.Popen[bytes]) -> None:
    """Cancel the run, and wait for its end."""
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130


def make_key(folder: Path, name: str, *, passphrase: str = "") -> Path:
    """Create a private key."""
    path = folder / name
    words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path)
    subprocess.run(words, check=True)
    return path


def test_a_wrong_user_is_told(taskscaler: Command) -> None:
    """The warning has the stage, how often, since when, and what the instance said."""
    config = config_of(taskscaler, 'username = "not-this-one"')
    process = taskscaler.start("--config", config, "--", "true")
    line = told(process, b"warning: local/", b"login failed", b"on 1 instance since 20")
    assert "Permission denied for user not-this-one" in line
    end(process)


def test_a_failing_ready_command_is_told(taskscaler: Command) -> None:
    """The warning has its exit code and its last line, and the instance stays."""
    path = taskscaler.file("""
        [autoscaler]
        instance_ready_command = "echo first >&2; echo the disk is not mounted >&2; exit 3"

        [[jobs]]
        name = "a"
        script = ["true"]
    """)
    process = taskscaler.start(path)
    line = told(process, b"warning: local/", b"instance_ready_command failed")
    assert line.endswith("the instance_ready_command ended with 3: the disk is not mounted\n")
    end(process)
    assert len(taskscaler.reported()["instances"]) == 1


@pytest.mark.long
def test_a_server_that_says_nothing_is_told(taskscaler: Command) -> None:
    """A banner that never comes is told long before the timeout of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = config_of(taskscaler, f"protocol_port = {server.getsockname()[1]}")
        process = taskscaler.start("--config", config, "--", "true")
        told(process, b"connect failed", b"could not be reached within 5 s", b"does not answer")
        end(process)


def test_a_key_file_that_disappears_costs_no_instance(taskscaler: Command) -> None:
    """A fault of this computer is told, no instance is bought again, and the run goes on after."""
    key = make_key(taskscaler.folder, "key")
    text = key.read_text()
    path = config_of(taskscaler, f'key_path = "{key}"', "heartbeat_interval = '1h'")
    process = taskscaler.start("--config", path, "--", "true")
    # The instance does not know it.
    told(process, b"login failed", b"Permission denied")
    key.unlink()
    told(process, b"warning: local/", b"the settings on this computer failed", b"cannot be read")
    key.write_text(text)
    end(process)
    assert len(taskscaler.reported()["instances"]) == 1


@pytest.mark.parametrize("fault", ["encrypted", "open", "no key"])
def test_a_key_that_cannot_be_used_is_refused_before_an_instance_is_bought(
    taskscaler: Command, fault: str
) -> None:
    """An encrypted key, one that others can read and a file without a key are wrong input."""
    key = make_key(taskscaler.folder, "key", passphrase="secret" if fault == "encrypted" else "")
    if fault == "open":
        key.chmod(0o644)
    elif fault == "no key":
        key.write_text("nothing\n")
    config = config_of(taskscaler, f'key_path = "{key}"')
    done = taskscaler.run_jobs("--config", config, "--", "true")
    assert done.returncode == 2
    words = {
        "encrypted": f"is encrypted, and no passphrase can be given; use a key without one, which "
        f"`ssh-keygen -p -f {key}` makes of it",
        "open": f"can be read by other users (its mode is 0644); run `chmod 600 {key}`",
        "no key": "contains no private key",
    }
    assert f"connector_config.key_path: {key} {words[fault]}" in done.stderr


# A group that is gone.


def servers_of(process: subprocess.Popen[bytes]) -> Sequence[int]:
    """Return the process ids of the servers of the local groups that a process has started."""
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            is_child = f"\nPPid:\t{process.pid}\n" in status.read_text()
            if is_child and b"local/_main.py" in status.with_name("cmdline").read_bytes():
                found.append(int(status.parent.name))
        except OSError:  # It has just ended.
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_end_of_the_server_ends_the_run(taskscaler: Command, fifo: Path) -> None:
    """No instance will come any more, so the run says so at once instead of waiting."""
    path = taskscaler.file(f"""
        [[jobs]]
        name = "a"
        script = ["echo begun", "cat {fifo}"]
        retries = 3
    """)
    process = taskscaler.start(path)
    assert process.stdout is not None
    assert any(b"begun" in line for line in process.stdout)
    for server in servers_of(process):
        os.kill(server, signal.SIGKILL)
    _, messages = process.communicate()
    assert process.returncode == 3
    assert b"error: the instance group is gone, with all that it held: local/" in messages
    assert b"the server of the local group ended" in messages
    (job,) = taskscaler.reported()["jobs"]
    assert (job["state"], job["attempts"]) == ("system_failure", 1)


# State files.


def test_a_file_that_is_no_state_file_is_wrong_input(taskscaler: Command) -> None:
    """Nothing is written, not even a lock; another program's database is told from a state file."""
    text, other = taskscaler.folder / "passwd", taskscaler.folder / "other.db"
    text.write_text("root:x:0:0::/root:/bin/sh\n")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE bookmarks (name TEXT)")
    connection.close()
    before = sorted(taskscaler.folder.iterdir())
    for path, words in ((text, "it is not a state file"), (other, "database of another program")):
        done = taskscaler.run_jobs("--state", path, "--", "true")
        assert done.returncode == 2
        assert f"{path}" in done.stderr
        assert words in done.stderr
    assert sorted(taskscaler.folder.iterdir()) == before


# The end of a run.


def test_instances_of_a_temporary_group_are_not_promised_to_the_next_run(
    taskscaler: Command,
) -> None:
    """They end with the group, whatever `delete_instances_on_shutdown` says."""
    path = config_of(taskscaler)
    path.write_text(path.read_text().replace("shutdown = true", "shutdown = false"))
    policy = '[[runners.autoscaler.policy]]\nidle_time = "10m"\n'
    path.write_text(path.read_text() + policy)
    state = taskscaler.folder / "state.sqlite"
    done = taskscaler.run_jobs("--config", path, "--state", state, "--", "true")
    assert done.returncode == 0, done.stderr
    assert "next run" not in done.stderr


def test_a_third_signal_leaves_no_lock(
    taskscaler: Command, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process exits without the cleanup, but its lock of the group does not stay."""
    locks = taskscaler.folder / "locks"
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(locks))
    root = taskscaler.folder / "root"
    process = taskscaler.start(
        "--plugin-config",
        f"root={root}",
        "--",
        "sh",
        "-c",
        f"echo begun; trap '' TERM; cat {fifo}; cat {fifo}",
    )
    assert process.stdout is not None
    assert any(b"begun" in line for line in process.stdout)
    assert len(list(locks.iterdir())) == 1
    process.send_signal(signal.SIGINT)
    told(process, b"waiting for 1 running job")
    process.send_signal(signal.SIGINT)
    told(process, b"cancelling jobs")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert list(locks.iterdir()) == []
