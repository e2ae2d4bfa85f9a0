"""The contract of an instance group, against the fake cloud and its SSH servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import requests.adapters
from typing_extensions import override

import fleeting
from fleeting.testing import InstanceGroupContract
from fleeting.types import GroupSettings
from fleeting_plugin_googlecloud import GoogleProvider
from gce_plugin import configure, open_group
from gce_state import Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, Finding
    from gce_cloud import GoogleCloud

SOON = Pace(operation=0.01, create=0.02, boot=0.03, delete=0.05, suspend=0.05)


class GoogleContract(InstanceGroupContract):
    """Every promise of `fleeting.abc.InstanceGroup`."""

    instance_timeout = timedelta(seconds=20)
    call_timeout = timedelta(seconds=30)
    page_size = 3
    repeats_operations = True
    unknown_id = "builders-unknown000"
    regional = False
    port = 0
    cloud: GoogleCloud

    @pytest.fixture(autouse=True)
    def keep_few_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep one idle connection for each client: tests wait until no others are left over."""
        defaults = 10, 1, 0, False
        monkeypatch.setattr(requests.adapters.HTTPAdapter.__init__, "__defaults__", defaults)
        monkeypatch.setattr("fleeting_plugin_googlecloud._group.WATCH_SECONDS", 0.05)

    @pytest.fixture
    def open_group(
        self, cloud: GoogleCloud
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return a function that opens a group of spot instances, listed in small pages."""
        self.cloud = cloud
        self.port = cloud.use_machines()
        cloud.template = {"scheduling": {"provisioningModel": "SPOT"}}
        cloud.page_size = 3
        cloud.group(
            "builders",
            regional=self.regional,
            pace=SOON,
            listManagedInstancesResults="PAGINATED",
        )
        return lambda: open_group(cloud, regional=self.regional)

    @pytest.fixture
    @override
    def check_provider(self, cloud: GoogleCloud) -> Callable[[], Awaitable[Sequence[Finding]]]:
        config = configure(cloud, regional=self.regional)
        return lambda: GoogleProvider().check(config, GroupSettings())

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        self.cloud.interrupt(id)
        return True

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        return await fleeting.connect(replace(info, port=self.port))


class TestZonalContract(GoogleContract):
    """A zonal group."""


class TestRegionalContract(GoogleContract):
    """A regional group."""

    regional = True
