"""The process of moto: it ends with its parent."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aws_moto import Moto

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = """
import sys
from pathlib import Path
from aws_moto import Moto
print(Moto(Path(sys.argv[1])).url, flush=True)
sys.stdin.read()
"""


def is_answering(url: str) -> bool:
    """Return whether moto answers."""
    try:
        with urllib.request.urlopen(f"{url}/moto-api/", timeout=5):  # noqa: S310 - our own
            return True
    except OSError:
        return False


def eventually(is_true: Callable[[], bool]) -> bool:
    """Wait up to ten seconds for a condition."""
    deadline = time.monotonic() + 10
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_true()


def test_moto_ends_with_its_parent(tmp_path: Path) -> None:
    """Moto ends when its parent process is killed."""
    support = str(Path(sys.modules[Moto.__module__].__file__ or "").parent)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": support},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert is_answering(url)
        parent.kill()
    assert eventually(lambda: not is_answering(url))


def test_failure_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If moto does not start, the error contains its output."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(RuntimeError, match=r"(?s)moto did not start.*/nowhere"):
        Moto(tmp_path)
