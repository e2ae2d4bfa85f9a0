"""The `taskscaler` command runs jobs on instances that are real SSH servers."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from aws_errors import LostReply, Throttled, Unavailable
from aws_group import Delays
from cli_command import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aws_cloud import AwsCloud

SOON = Delays(
    listing=timedelta(seconds=0.1),
    launch=timedelta(seconds=0.2),
    terminate=timedelta(seconds=0.2),
)
CONFIG = """
[[runners]]
name = "builders"

[runners.autoscaler]
plugin = "aws"
capacity_per_instance = 1
max_use_count = 1
max_instances = {instances}
delete_instances_on_shutdown = true
update_interval = "500ms"
update_interval_when_expecting = "100ms"

[runners.autoscaler.plugin_config]
name = "builders"
region = "{region}"
endpoint_url = "{url}"
launch_patience = "0s"
requests_per_second = 1000

[runners.autoscaler.connector_config]
protocol_port = {port}

[runners.autoscaler.state_storage]
enabled = false

[runners.autoscaler.extensions]
backoff = "100ms"
increase_interval = "200ms"
{extensions}
"""


@pytest.fixture
def taskscaler(tmp_path: Path, cloud: AwsCloud) -> Iterator[Command]:
    """Yield the command."""
    del cloud
    command = Command(tmp_path)
    yield command
    command.close()


def write_config(command: Command, cloud: AwsCloud, instances: int, extensions: str = "") -> Path:
    """Write a configuration for the group `builders`."""
    path = command.folder / "config.toml"
    path.write_text(
        CONFIG.format(
            instances=instances,
            region=cloud.region,
            url=cloud.url,
            port=cloud.use_machines(),
            extensions=extensions,
        )
    )
    return path


def write_jobs(command: Command, count: int, script: str = "echo done") -> Path:
    """Write a file with `count` jobs."""
    return command.file(
        f"[[jobs]]\nname = 'job'\nscript = [{json.dumps(script)}]\ncount = {count}\n"
    )


def running(cloud: AwsCloud) -> list[str]:
    """Return the ids of the members that are not terminating."""
    ending = "Terminating"
    return [id for id, state in cloud.members("builders").items() if not state.startswith(ending)]


@pytest.mark.long
def test_fifty_jobs_each_on_its_own_instance(taskscaler: Command, cloud: AwsCloud) -> None:
    """Fifty jobs run on fifty instances, ten at a time, and no instance is left."""
    cloud.group("builders", delays=SOON)
    config = write_config(taskscaler, cloud, 10)
    jobs = write_jobs(taskscaler, 50, 'test -z "$(ls)" && touch used && pwd')
    done = taskscaler.run_jobs("--config", config, "--output", "none", jobs)
    assert done.returncode == 0, done.stderr
    found = taskscaler.reported()
    assert {job["state"] for job in found["jobs"]} == {"success"}
    assert len(found["jobs"]) == 50
    assert len({job["instance"] for job in found["jobs"]}) == 50
    assert len(found["instances"]) == 50
    assert (cloud.desired("builders"), running(cloud)) == (0, [])
    assert len(cloud.calls("SendSSHPublicKey")) >= 50
    assert len(cloud.calls("TerminateInstanceInAutoScalingGroup")) == 50


def test_jobs_on_a_failing_cloud(taskscaler: Command, cloud: AwsCloud) -> None:
    """Each job runs once although requests are refused, fail and lose their answers."""
    cloud.group("builders", delays=SOON)
    config = write_config(taskscaler, cloud, 4, 'creation_timeout = "10s"')
    for fault in (Throttled(), Unavailable()):
        cloud.fail("DescribeAutoScalingGroups", fault, times=2)
        cloud.fail("DescribeInstances", fault, times=2)
    cloud.fail("SendSSHPublicKey", Throttled(), times=3)
    cloud.fail("TerminateInstanceInAutoScalingGroup", LostReply(), times=3)
    jobs = write_jobs(taskscaler, 12)
    done = taskscaler.run_jobs("--config", config, jobs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 12
    assert {job["state"] for job in taskscaler.reported()["jobs"]} == {"success"}
    assert (cloud.desired("builders"), running(cloud)) == (0, [])


def put_hook(cloud: AwsCloud, transition: str) -> None:
    """Add a lifecycle hook that waits for an hour."""

    async def put() -> None:
        async with cloud.client("autoscaling") as autoscaling:
            await autoscaling.put_lifecycle_hook(
                AutoScalingGroupName="builders",
                LifecycleHookName="farewell",
                LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
                HeartbeatTimeout=3600,
            )

    anyio.run(put)


def test_a_hook_holds_up_the_end(taskscaler: Command, cloud: AwsCloud) -> None:
    """A run succeeds although a hook holds its instance, and says which, and until when."""
    cloud.group("builders", delays=SOON)
    put_hook(cloud, "TERMINATING")
    config = write_config(taskscaler, cloud, 1, 'shutdown_timeout = "2s"')
    done = taskscaler.run_jobs("--config", config, write_jobs(taskscaler, 1))
    assert done.returncode == 0, done.stderr
    [(id, state)] = cloud.members("builders").items()
    assert (state, cloud.desired("builders")) == ("Terminating:Wait", 0)
    assert "farewell waits for up to 1h" in done.stderr
    assert f"--lifecycle-action-result CONTINUE --instance-id {id}" in done.stderr
    assert "the cloud has begun to remove" in done.stderr
    assert "Traceback" not in done.stderr


def test_used_up_instances_are_removed_before_the_end(taskscaler: Command, cloud: AwsCloud) -> None:
    """An instance that serves no further job goes, although instances are kept by default."""
    cloud.group("builders", delays=SOON)
    config = write_config(taskscaler, cloud, 1)
    config.write_text(config.read_text().replace("delete_instances_on_shutdown = true\n", ""))
    done = taskscaler.run_jobs("--config", config, write_jobs(taskscaler, 1))
    assert done.returncode == 0, done.stderr
    assert (cloud.desired("builders"), running(cloud)) == (0, [])
