"""The contract of a group of instances, against the fake cloud."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from fleeting.testing import InstanceGroupContract
from fleeting.types import Duration, GroupSettings
from fleeting_plugin_aws import AwsConfig, AwsProvider

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup


class TestAwsContract(InstanceGroupContract):
    """Every promise of `fleeting.abc.InstanceGroup`."""

    instance_timeout = timedelta(seconds=20)
    call_timeout = timedelta(seconds=20)
    unknown_id = "i-0123456789abcdef0"
    can_connect = False

    @pytest.fixture
    def open_group(
        self, cloud: AwsCloud
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return what opens a group that has room for four instances."""
        cloud.group("builders", maximum=4)
        queue = cloud.queue("interruptions")
        config = AwsConfig(
            name="builders",
            region=cloud.region,
            endpoint_url=cloud.url,
            interruption_queue_url=queue,
            launch_patience=Duration(0),
            read_timeout=Duration(seconds=6),
            requests_per_second=1000.0,
        )
        provider = AwsProvider()
        return lambda: provider.open(config, GroupSettings())
