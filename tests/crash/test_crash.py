"""A few rounds of the crash tests, started as on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the checks look into /proc")
def test_killed_managers_lose_and_repeat_nothing() -> None:
    """After any kill of the manager, no ended job runs again, and no lost job is unreported."""
    words = [sys.executable, "-m", "tests.crash", "--times", "5", "--seed", "4"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed 5 times" in done.stdout
