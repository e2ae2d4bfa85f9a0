"""The costs of a group on Google Cloud: time and memory to open it, and requests to Google.

The fake cloud of the plugin's tests answers over HTTP on the loopback interface. Time
and memory are those of a fresh process that opens a group and lists it once; the
event loop is blocked while no other task can run. Requests are counted by the fake cloud.

    python -m benchmarks.google_calls [INSTANCES]
"""

from __future__ import annotations

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
    from fleeting.abc import InstanceGroup
    from gce_cloud import GoogleCloud

PLUGINS = Path(__file__).parents[1] / "plugins"
HOUR = timedelta(hours=1)
UPDATE_INTERVAL = timedelta(minutes=1)


async def use_instances(cloud: GoogleCloud, group: InstanceGroup, count: int) -> None:
    """Create instances, ask how to connect to each, and remove them."""
    await group.increase(count, f"benchmark of {count}")
    cloud.settle()
    instances = (await group.update()).instances
    async with anyio.create_task_group() as tasks:
        for one in instances:
            tasks.start_soon(group.connect_info, one.id)
    await group.decrease([one.id for one in instances])
    cloud.settle()
    await group.update()


async def measure_requests(
    cloud: GoogleCloud, config: dict[str, Any], counts: list[int]
) -> list[dict[str, object]]:
    """Measure the requests to create instances, connect to them and remove them."""
    from fleeting import Registry, decode
    from fleeting.types import GroupSettings

    provider = Registry().provider("googlecloud")
    rows: list[dict[str, object]] = []
    made = decode(config, provider.config_type, where="benchmark")
    before = len(cloud.calls())
    async with provider.open(made, GroupSettings()) as group:
        rows.append({"what": "requests to open", "figure": len(cloud.calls()) - before})
        for count in counts:
            before = len(cloud.calls())
            await use_instances(cloud, group, count)
            calls = Counter(call.name for call in cloud.calls(since=before))
            what = f"requests for each of {count} instances, from creation to removal"
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
    for name in ("aws", "googlecloud"):
        sys.path.insert(0, str(PLUGINS / f"fleeting-plugin-{name}" / "tests" / "support"))
    from gce_cloud import PROJECT, ZONE, GoogleCloud

    cloud = GoogleCloud()
    with tempfile.TemporaryDirectory() as folder:
        cloud.group()
        config = {
            "name": "builders",
            "project": PROJECT,
            "zone": ZONE,
            "endpoint": cloud.url,
            "credentials_file": str(cloud.write_credentials(Path(folder))),
        }
        rows = measure_opening("googlecloud", config)
        rows += anyio.run(measure_requests, cloud, config, sorted({1, 10, instances}))
        cloud.close()
    report("google_calls", rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
