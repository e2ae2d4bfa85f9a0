"""A real OpenSSH server for a benchmark, with its own port, keys and configuration.

It serves a new user with an empty home directory and dash as the shell, because a slow start-up
file of a login shell would dominate the figures. Creating the user requires root. Server and user
are removed afterwards.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

# The limits of the server are so high that no contender reaches them.
SERVER_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
PrintMotd no
PrintLastLog no
UseDNS no
LogLevel FATAL
MaxSessions 1000
MaxStartups 1000
Subsystem sftp internal-sftp
"""

# All OpenSSH clients use this configuration; the first one opens the shared connection.
CLIENT_CONFIG = """
Host bench
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    StrictHostKeyChecking yes
    BatchMode yes
    ControlMaster auto
    ControlPath {folder}/master
    ControlPersist yes
"""


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running server.

    Attributes:
        port: the port on 127.0.0.1.
        user: the user that may log in.
        private_key: the private key of the user, in OpenSSH format.
        host_key: the public key of the server, in OpenSSH format.
        client_config: the file for `ssh -F`, in which the server is named `bench`.
    """

    port: int
    user: str
    private_key: str
    host_key: str
    client_config: Path

    def close_master(self) -> None:
        """Close the shared connection of the OpenSSH clients, if there is one."""
        command = ["ssh", "-F", str(self.client_config), "-O", "exit", "bench"]
        subprocess.run(command, check=False, capture_output=True)


@contextlib.contextmanager
def ssh_server() -> Generator[SshServer]:
    """Run a server for a new user; remove both at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-sshd-") as name, _user() as user:
        folder = Path(name)
        folder.chmod(0o755)  # The user must reach the authorized keys.
        for key in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]
            subprocess.run([*command, str(folder / key)], check=True)
        port = _free_port()
        host_key = (folder / "host_key.pub").read_text().strip()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
        (folder / "sshd_config").write_text(SERVER_CONFIG.format(port=port, folder=folder))
        config = folder / "ssh_config"
        config.write_text(CLIENT_CONFIG.format(port=port, folder=folder, user=user))
        with _process(folder, port):
            server = SshServer(port, user, (folder / "user_key").read_text(), host_key, config)
            try:
                yield server
            finally:
                server.close_master()


@contextlib.contextmanager
def _user() -> Generator[str]:
    name = f"bench{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as nothing:
        # No password matches `*`, but unlike the default it does not lock the account.
        options = ["--create-home", "--skel", nothing, "--shell", "/bin/dash", "--password", "*"]
        subprocess.run(["useradd", *options, name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", "--force", "--remove", name], check=False, capture_output=True)


@contextlib.contextmanager
def _process(folder: Path, port: int) -> Generator[None]:
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "sshd"
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd requires this folder.
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")])
    try:
        _await_port(process, port)
        yield
    finally:
        process.terminate()
        process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)  # There is no event for a port that another process opens.
    raise RuntimeError("sshd did not start; see its message above")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
