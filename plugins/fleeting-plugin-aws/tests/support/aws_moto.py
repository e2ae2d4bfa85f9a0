"""Runs moto in a child process; it holds the fake cloud's instances and queues.

moto completes everything at once and accepts nearly everything. The behaviour of
real AWS is in `aws_group.py` and its neighbours, which answer in front of moto.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

__all__ = ("IMAGE", "Moto")

# The only machine image, because loading Amazon's takes seconds.
IMAGE = {
    "ami_id": "ami-0123456789abcdef0",
    "name": "linux",
    "description": "Linux",
    "owner_id": "801119661308",
    "architecture": "x86_64",
    "virtualization_type": "hvm",
    "hypervisor": "xen",
    "state": "available",
    "public": True,
    "image_location": "amazon/linux",
    "image_type": "machine",
    "root_device_type": "ebs",
    "root_device_name": "/dev/sda1",
    "sriov": "simple",
}
START_SECONDS = 60
POLL_SECONDS = 0.05


class Moto:
    """A moto server on the loopback interface.

    It ends with `close`, and if this process ends in any other way: it notices
    the end of its standard input.

    Args:
        folder: for its log and its input.

    Attributes:
        url: where it listens.
    """

    def __init__(self, folder: Path) -> None:
        images = folder / "images.json"
        images.write_text(json.dumps([IMAGE]))
        log = folder / "log"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"AWS_EC2_METADATA_DISABLED": "true", "MOTO_AMIS_PATH": str(images)}
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment,
            )
        self._log = log
        try:
            self.url = self._find_url()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.communicate()

    def _find_url(self) -> str:
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"moto did not start: {self._log.read_text()}")
        return f"http://127.0.0.1:{int(port)}"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5):  # noqa: S310 - our own
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"moto is not ready: {self._log.read_text()}")
            time.sleep(POLL_SECONDS)


def _end_with(stream: IO[bytes]) -> None:
    stream.read()
    os._exit(0)


def _main() -> None:
    # Remove the folder of this file, whose modules could shadow those of libraries.
    sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(__file__).parent]
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    # Imported here because it takes a second, and only the child process needs it.
    server: Any = import_module("moto.server").ThreadedMotoServer(
        "127.0.0.1", port=0, verbose=False
    )
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201 - to the parent
    threading.Event().wait()


if __name__ == "__main__":
    _main()
