"""The `fleeting` command with groups on AWS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aws_group import Delays

if TYPE_CHECKING:
    from aws_cloud import AwsCloud

NAME = "builders"
DEADLINE_SECONDS = 120


class Fleeting:
    """The installed command, for the group `builders`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.words = [
            *("--plugin-config", f"name={NAME}"),
            *("--plugin-config", "region=eu-central-1"),
            *("--plugin-config", f"endpoint_url={url}"),
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
        return self.run("check", "aws", *self.words, *words)

    def group(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a subcommand of `fleeting group`."""
        return self.run("group", verb, "--plugin", "aws", *self.words, *words)

    def status(self) -> dict[str, Any]:
        """Return the group's status."""
        done = self.group("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def fleeting(tmp_path: Path, cloud: AwsCloud) -> Fleeting:
    """Return the command for the fake cloud."""
    return Fleeting(tmp_path, cloud.url)


def test_check_of_a_good_group(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """The check of a good group succeeds and prints the policy."""
    cloud.group(NAME)
    done = fleeting.check("--no-connect")
    assert (done.returncode, done.stderr) == (0, "")
    assert "arn:aws:iam::123456789012" in done.stdout or "arn:aws:sts::123456789012" in done.stdout
    assert "autoscaling:SetDesiredCapacity" in done.stdout
    assert f":autoScalingGroupName/{NAME}" in done.stdout


def test_check_as_json(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """The findings are printed as JSON, and the policy in them is valid JSON too."""
    cloud.group(NAME, protected=False)
    done = fleeting.check("--no-connect", "--json")
    assert done.returncode == 0
    findings = {one["code"]: one for one in json.loads(done.stdout)["findings"]}
    assert set(findings) == {"scale-in-protection", "identity", "iam-policy"}
    assert findings["scale-in-protection"]["severity"] == "warning"
    assert json.loads(findings["iam-policy"]["fix"])["Version"] == "2012-10-17"


def test_check_with_an_error(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """The check exits with 1 and prints the error first, with its fix."""
    assert cloud.url
    done = fleeting.check()
    assert done.returncode == 1
    first, fix, *_ = done.stdout.splitlines()
    assert first.startswith(f"error: group-missing: there is no Auto Scaling group {NAME} in")
    assert "aws autoscaling describe-auto-scaling-groups" in fix


def test_check_of_wrong_input(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """An unknown key makes the check exit with 2 without a request to AWS."""
    done = fleeting.check("--plugin-config", "regoin=eu-central-1")
    assert done.returncode == 2
    assert "did you mean 'region'" in done.stderr
    assert cloud.calls() == []


def test_check_against_moto_alone(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """An emulator that lacks an operation can be checked without an error."""
    cloud.group(NAME)
    fleeting.words = Fleeting(fleeting.folder, cloud.moto_url).words
    done = fleeting.check("--no-connect", "--json", "--plugin-config", "max_attempts=1")
    assert done.returncode == 0, done.stdout
    found = {one["code"]: one["severity"] for one in json.loads(done.stdout)["findings"]}
    assert found["instance-refresh-unknown"] == "info"
    assert found["identity"] == "info"


@pytest.mark.long
def test_group_commands(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """The commands add instances, run a command on one, check its connection and remove it."""
    port = f"protocol_port={cloud.use_machines()}"
    cloud.group(NAME, delays=Delays(listing=0, launch=1, terminate=0))
    grown = fleeting.group("increase", "2", "--wait")
    assert grown.returncode == 0
    assert fleeting.status()["id"] == f"aws/123456789012/eu-central-1/{NAME}"
    first, second = (one["id"] for one in fleeting.status()["instances"])
    done = fleeting.group("run", first, "--connector-config", port, "--", "sh", "-c", "pwd; exit 3")
    assert (done.returncode, first in done.stdout) == (3, True)
    assert fleeting.check("--connector-config", port).returncode == 0
    assert fleeting.group("decrease", first, "--yes").returncode == 0
    assert [one["id"] for one in fleeting.status()["instances"]] == [second]
    assert cloud.desired(NAME) == 1
    full = fleeting.group("increase", "20")
    assert full.returncode == 1
    assert "--max-size" in full.stderr


def test_refused_request(fleeting: Fleeting, cloud: AwsCloud) -> None:
    """A request that the policy does not allow exits with 3 and names the action."""
    cloud.group(NAME)
    cloud.allow_only("autoscaling:DescribeAutoScalingGroups")
    done = fleeting.group("increase", "1")
    assert done.returncode == 3
    assert "autoscaling:SetDesiredCapacity" in done.stderr
    assert "Traceback" not in done.stderr
