"""The `fleeting` command with groups on Google Cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gce_cloud import PROJECT, ZONE
from gce_state import Pace

if TYPE_CHECKING:
    from gce_cloud import GoogleCloud

DEADLINE_SECONDS = 120
SOON = Pace(operation=0.05, create=0.05, boot=0.05, delete=0.05, suspend=0.1)


class Fleeting:
    """The installed command, for the group `builders`."""

    def __init__(self, folder: Path, cloud: GoogleCloud) -> None:
        self.folder = folder
        settings = {
            "name": "builders",
            "project": PROJECT,
            "zone": ZONE,
            "endpoint": cloud.url,
            "credentials_file": str(cloud.credentials),
        }
        self.words = [
            word for key, text in settings.items() for word in ("--plugin-config", f"{key}={text}")
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command and wait for its end."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("fleeting")), *words],
            cwd=self.folder,
            env={**os.environ, "XDG_STATE_HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def check(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Check the group."""
        return self.run("check", "googlecloud", *self.words, *words)

    def group(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand of `fleeting group`."""
        return self.run("group", verb, "--plugin", "googlecloud", *self.words, *words)

    def status(self) -> dict[str, Any]:
        """Return the group's status."""
        done = self.group("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def fleeting(tmp_path: Path, cloud: GoogleCloud) -> Fleeting:
    """Return the command for the fake cloud."""
    return Fleeting(tmp_path, cloud)


def test_list_imports_no_sdk() -> None:
    """Listing and loading the plugin imports nothing of Google's."""
    code = (
        "import sys, fleeting; fleeting.Registry().provider('googlecloud');"
        "print([name for name in sys.modules if name.startswith(('google', 'requests'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_check(fleeting: Fleeting, cloud: GoogleCloud) -> None:
    """The check prints the role and, for a wrong group, the error with its fix first."""
    cloud.group()
    done = fleeting.check("--no-connect")
    assert (done.returncode, done.stderr) == (0, "")
    assert "gcloud iam roles create fleeting" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_wrong_check(fleeting: Fleeting, cloud: GoogleCloud) -> None:
    """A region as zone, and a missing group, are told with what to do."""
    done = fleeting.check("--plugin-config", "zone=europe-west1")
    assert done.returncode == 1
    assert 'write region = "europe-west1"' in done.stdout
    assert cloud.calls() == []
    done = fleeting.check()
    assert done.returncode == 1
    assert done.stdout.startswith("error: group-missing: there is no managed instance group")


@pytest.mark.long
def test_group_commands(fleeting: Fleeting, cloud: GoogleCloud) -> None:
    """The commands add, suspend, resume and remove instances, and run a command on one."""
    port = f"protocol_port={cloud.use_machines()}"
    cloud.group(pace=SOON)
    assert fleeting.group("increase", "2", "--wait").returncode == 0
    assert fleeting.status()["id"] == f"googlecloud/{PROJECT}/{ZONE}/builders"
    first, second = (one["id"] for one in fleeting.status()["instances"])
    done = fleeting.group("run", first, "--connector-config", port, "--", "sh", "-c", "exit 3")
    assert done.returncode == 3, done.stderr
    done = fleeting.group("suspend", first)
    assert done.returncode == 0, done.stderr
    states = {one["id"]: one["state"] for one in fleeting.status()["instances"]}
    assert states == {first: "suspended", second: "running"}
    done = fleeting.group("resume", first)
    assert done.returncode == 0, done.stderr
    assert {one["state"] for one in fleeting.status()["instances"]} == {"running"}
    assert fleeting.group("decrease", first, "--yes").returncode == 0
    assert [one["id"] for one in fleeting.status()["instances"]] == [second]
