"""The costs of a group on AWS: time and memory to open it, and requests to AWS.

The fake AWS of the plugin's tests (moto behind a proxy) answers over HTTP on the
loopback interface. Time and memory are those of a fresh process that opens a
group and lists it once; the event loop is blocked while no other task can run.
Requests are counted by the fake AWS.

    python -m benchmarks.aws_calls [INSTANCES]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from benchmarks._opening import measure_opening
from benchmarks._report import report

if TYPE_CHECKING:
    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup

SUPPORT = Path(__file__).parents[1] / "plugins" / "fleeting-plugin-aws" / "tests" / "support"
HOUR = timedelta(hours=1)
UPDATE_INTERVAL = timedelta(minutes=1)


async def use_instances(cloud: AwsCloud, group: InstanceGroup, count: int) -> None:
    """Launch instances, ask how to connect to each, and remove them."""
    await group.increase(count, "benchmark")
    cloud.settle()
    instances = (await group.update()).instances
    async with anyio.create_task_group() as tasks:
        for one in instances:
            tasks.start_soon(group.connect_info, one.id)
    await group.decrease([one.id for one in instances])
    cloud.settle()
    await group.update()


async def measure_requests(
    cloud: AwsCloud, config: dict[str, Any], counts: list[int]
) -> list[dict[str, object]]:
    """Measure the requests to launch instances, connect to them and remove them."""
    from fleeting import Registry, decode
    from fleeting.types import GroupSettings

    provider = Registry().provider("aws")
    rows: list[dict[str, object]] = []
    made = decode(config, provider.config_type, where="benchmark")
    async with provider.open(made, GroupSettings()) as group:
        for count in counts:
            before = len(cloud.calls())
            await use_instances(cloud, group, count)
            calls = Counter(call.operation for call in cloud.calls()[before:])
            what = f"requests for each of {count} instances, from launch to removal"
            rows.append({"what": what, "figure": calls.total() / count})
        before = len(cloud.calls())
        for _ in range(HOUR // UPDATE_INTERVAL):
            for one in (await group.update()).instances:
                await group.heartbeat(one.id)
        idle = len(cloud.calls()) - before
        rows.append({"what": "requests for an idle hour, listed once a minute", "figure": idle})
    return rows


def main(instances: int) -> None:
    """Measure, and print the figures."""
    sys.path.insert(0, str(SUPPORT))
    from aws_cloud import AwsCloud
    from aws_moto import Moto
    from aws_plugin import ENVIRONMENT

    os.environ.update(ENVIRONMENT)

    with tempfile.TemporaryDirectory() as folder:
        moto = Moto(Path(folder))
        cloud = AwsCloud(moto)
        counts = sorted({1, 10, instances})
        cloud.group("builders", maximum=max(counts))
        config = {
            "name": "builders",
            "region": cloud.region,
            "endpoint_url": cloud.url,
            "requests_per_second": 1000.0,
        }
        rows = measure_opening("aws", config)
        rows += anyio.run(measure_requests, cloud, config, counts)
        cloud.close()
        moto.close()
    report("aws_calls", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
