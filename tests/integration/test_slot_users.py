"""One user for each slot, on a real sshd that has these users."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.conftest import SSHD, free_port
from tests.integration.test_jobs_on_sshd import World

from ended_processes import gone
from fleeting.types import ConnectInfo, ConnectorSettings
from left_servers import watch_process
from taskscaler.jobs.job import Job
from taskscaler.jobs.output import Stream
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Keys

UNSHARE = shutil.which("unshare")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        os.geteuid() != 0 or UNSHARE is None or SSHD is None,
        reason="only root can run an sshd that has users of its own",
    ),
]

USERS = {"ci0": 54320, "ci1": 54321}


@pytest.fixture(scope="module")
def users_sshd(keys: Keys) -> Iterator[ConnectInfo]:
    """Start an sshd that sees another user database; the one of this computer is unchanged."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        passwd = Path("/etc/passwd").read_text()
        for user, uid in USERS.items():
            (folder / user).mkdir(mode=0o700)
            os.chown(folder / user, uid, 65534)
            passwd += f"{user}:x:{uid}:65534::{folder}/{user}:/bin/sh\n"
        (folder / "passwd").write_text(passwd)
        shadow = "".join(f"{user}:*:19000:0:99999:7:::\n" for user in USERS)
        (folder / "shadow").write_text(Path("/etc/shadow").read_text() + shadow)
        (folder / "shadow").chmod(0o600)
        (folder / "key").touch(0o600)
        (folder / "key").write_bytes(keys.host.export_private_key("openssh"))
        (folder / "authorized").write_text(keys.public(keys.client) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        port = free_port()
        (folder / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/key\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPermitRootLogin yes\n"
            "SetEnv SHLVL=9\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
        )
        command = (
            f"mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/shadow /etc/shadow "
            f"&& exec {SSHD} -D -e -f {folder}/config"
        )
        with subprocess.Popen(
            [str(UNSHARE), "--mount", "sh", "-c", command], stderr=subprocess.DEVNULL
        ) as process:
            watch_process(process.pid, f"{folder}/config")
            yield ConnectInfo(
                "i-3",
                "ssh",
                "127.0.0.1",
                port=port,
                username="root",
                private_key=keys.private,
                host_keys=(keys.public(keys.host),),
            )
            process.terminate()


async def test_each_slot_has_a_user(users_sshd: ConnectInfo, tmp_path: Path) -> None:
    """Jobs of different slots are different users, who cannot read or end each other."""
    world = World(users_sshd, tmp_path, ConnectorSettings(slot_users=tuple(USERS)))
    (tmp_path / "given").write_text("given\n")
    jobs = [
        Job(
            name=name,
            script=[
                "cat given",
                "id -un",
                "pwd",
                "sleep 0.5",
                f"ls ~{other} 2>&1 || echo kept out",
            ],
            upload=["given"],
            download=["given"],
        )
        for name, other in (("a", "ci1"), ("b", "ci0"))
    ]
    results = await world.run(*jobs)
    assert [one.state for one in results.values()] == [JobState.SUCCESS] * 2
    text = world.output[Stream.STDOUT].decode()
    assert {user for user in USERS if f"{user}\n" in text} == set(USERS)
    assert text.count("kept out") == 2
    assert (tmp_path / "a" / "given").read_text() == "given\n"


async def test_nothing_of_a_slot_user_outlives_the_job(
    users_sshd: ConnectInfo, tmp_path: Path
) -> None:
    """Neither a process without the environment of the job, nor the connection's file server."""
    settings = ConnectorSettings(slot_users=("ci0",))
    world = World(users_sshd, tmp_path, settings, capacity=1)
    (tmp_path / "given").touch()
    hidden = "env -i setsid sh -c 'echo $$; exec sleep 600' &"
    jobs = [
        Job(name=name, script=[hidden, "sleep 0.3"], upload=["given"], download=["given"])
        for name in ("a", "b")
    ]
    results = await world.run(*jobs)
    assert [one.state for one in results.values()] == [JobState.SUCCESS] * 2
    for pid in world.output[Stream.STDOUT].split():
        await gone(int(pid))


async def test_a_slot_without_a_user(users_sshd: ConnectInfo, tmp_path: Path) -> None:
    """A job of such a slot does not run as another user, and the reason is told."""
    world = World(replace(users_sshd), tmp_path, ConnectorSettings(slot_users=("ci0",)))
    jobs = [Job(name=name, script=["sleep 0.5"]) for name in ("a", "b")]
    results = await world.run(*jobs)
    assert sorted(one.state.value for one in results.values()) == ["success", "system_failure"]
    (reason,) = [one.reason for one in results.values() if one.reason]
    assert "slot_users names no user for slot 1" in reason
