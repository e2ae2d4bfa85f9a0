"""The contract of a group of instances, against the fake cloud and its real SSH servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

import fleeting
from aws_plugin import open_group
from fleeting.testing import InstanceGroupContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from aws_cloud import AwsCloud
    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo


class TestAwsContract(InstanceGroupContract):
    """Every promise of `fleeting.abc.InstanceGroup`."""

    instance_timeout = timedelta(seconds=20)
    call_timeout = timedelta(seconds=20)
    unknown_id = "i-0123456789abcdef0"
    port = 0

    @pytest.fixture
    def open_group(
        self, cloud: AwsCloud
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return what opens a group that has room for four instances."""
        self.port = cloud.use_machines()
        cloud.group("builders", maximum=4)
        queue = cloud.queue("interruptions").url
        return lambda: open_group(cloud, interruption_queue_url=queue)

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        return await fleeting.connect(replace(info, port=self.port))
