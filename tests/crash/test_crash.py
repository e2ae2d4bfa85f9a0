"""A few rounds of the crash tests, as anybody would start them by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the checks look into /proc")
def test_killed_managers_lose_and_repeat_nothing() -> None:
    """However the manager is killed, no finished job runs again, and none is lost unreported."""
    words = [sys.executable, "-m", "tests.crash", "--times", "5", "--seed", "4"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed 5 times" in done.stdout
