"""The `taskscaler` command runs jobs on instances that are real SSH servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli_command import Command
from gce_cloud import PROJECT
from gce_faults import LostReply, rate_limited, unavailable
from gce_state import Pace

if TYPE_CHECKING:
    from pathlib import Path

    from gce_cloud import GoogleCloud

SOON = Pace(operation=0.05, create=0.1, boot=0.1, delete=0.2, suspend=0.1)
CONFIG = """
[[runners]]
name = "builders"

[runners.autoscaler]
plugin = "googlecloud"
capacity_per_instance = 1
max_use_count = 1
max_instances = {instances}
delete_instances_on_shutdown = true
update_interval = "500ms"
update_interval_when_expecting = "100ms"

[runners.autoscaler.plugin_config]
name = "builders"
project = "{project}"
{place}
credentials_file = "{credentials}"
endpoint = "{url}"

[runners.autoscaler.connector_config]
protocol_port = {port}

[runners.autoscaler.state_storage]
enabled = false

[runners.autoscaler.extensions]
backoff = "100ms"
increase_interval = "200ms"
"""


def write_config(command: Command, cloud: GoogleCloud, instances: int, place: str) -> Path:
    """Write a configuration for the group `builders`."""
    path = command.folder / "config.toml"
    path.write_text(
        CONFIG.format(
            instances=instances,
            project=PROJECT,
            place=place,
            credentials=cloud.credentials,
            url=cloud.url,
            port=cloud.use_machines(),
        )
    )
    return path


def write_jobs(command: Command, count: int, script: str = "echo done") -> Path:
    """Write a file with `count` jobs."""
    return command.file(
        f"[[jobs]]\nname = 'job'\nscript = [{json.dumps(script)}]\ncount = {count}\n"
    )


def nothing_is_left(cloud: GoogleCloud) -> bool:
    """Return whether the group is empty, and will stay so."""
    (group,) = cloud.groups.values()
    return (group.target, cloud.members()) == (0, {})


def test_jobs_on_a_failing_cloud(
    tmp_path: Path, cloud: GoogleCloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each job runs once although requests are refused, fail and lose their answers."""
    cloud.group(regional=True, pace=SOON)
    command = Command(tmp_path, capfd)
    config = write_config(command, cloud, 4, 'region = "europe-west1"')
    for fault in (rate_limited(), unavailable()):
        cloud.fail("instanceGroupManagers.get", fault, times=2)
        cloud.fail("instances.get", fault, times=2)
    cloud.fail("instances.setMetadata", rate_limited(), times=2)
    cloud.fail("instanceGroupManagers.createInstances", LostReply(), times=3)
    cloud.fail("instanceGroupManagers.deleteInstances", LostReply(), times=3)
    done = command.run_jobs("--config", config, write_jobs(command, 8))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 8
    found = command.reported()
    assert {job["state"] for job in found["jobs"]} == {"success"}
    assert len({job["instance"] for job in found["jobs"]}) == 8
    assert nothing_is_left(cloud)
    command.close()


@pytest.mark.long
def test_fifty_jobs_each_on_its_own_instance(tmp_path: Path, cloud: GoogleCloud) -> None:
    """Fifty jobs run on fifty instances, ten at a time, and no instance is left."""
    cloud.group(pace=SOON)
    command = Command(tmp_path)
    config = write_config(command, cloud, 10, 'zone = "europe-west1-b"')
    jobs = write_jobs(command, 50, 'test -z "$(ls)" && touch used && pwd')
    done = command.run_jobs("--config", config, "--output", "none", jobs)
    assert done.returncode == 0, done.stderr
    found = command.reported()
    assert {job["state"] for job in found["jobs"]} == {"success"}
    assert len({job["instance"] for job in found["jobs"]}) == 50
    assert nothing_is_left(cloud)
    command.close()
