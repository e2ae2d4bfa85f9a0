"""The contract of an instance group, against the fake cloud and its SSH servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

import fleeting
from aws_plugin import configure, open_group
from fleeting.testing import InstanceGroupContract
from fleeting.types import GroupSettings
from fleeting_plugin_aws import AwsProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from aws_cloud import AwsCloud
    from aws_queue import Queue
    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, Finding


class TestAwsContract(InstanceGroupContract):
    """Every promise of `fleeting.abc.InstanceGroup`."""

    instance_timeout = timedelta(seconds=20)
    # Unused connections, also those of the fake cloud, stay open for a while.
    call_timeout = timedelta(seconds=60)
    page_size = 0
    secrets = ("not-looked-at",)
    unknown_id = "i-0123456789abcdef0"
    port = 0
    queue: Queue

    @pytest.fixture(autouse=True)
    def close_idle_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Close idle connections soon: tests wait until no connection is left over."""
        monkeypatch.setattr("fleeting_plugin_aws._session.KEEPALIVE_SECONDS", 0.5)

    @pytest.fixture
    def open_group(
        self, cloud: AwsCloud
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return a function that opens a group with at most four instances."""
        self.port = cloud.use_machines()
        cloud.group("builders", maximum=4)
        self.queue = queue = cloud.queue("interruptions")
        return lambda: open_group(cloud, interruption_queue_url=queue.url)

    @pytest.fixture
    @override
    def check_provider(self, cloud: AwsCloud) -> Callable[[], Awaitable[Sequence[Finding]]]:
        config = configure(cloud)
        return lambda: AwsProvider().check(config, GroupSettings())

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        self.queue.warn_of_interruption(id)
        return True

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        return await fleeting.connect(replace(info, port=self.port))
