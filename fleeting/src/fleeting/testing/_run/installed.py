"""The tests that `pytest --fleeting-provider NAME` runs: the contract of an installed provider.

Only pytest imports this file, as the only test file of such a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

import fleeting
from fleeting.testing import InstanceGroupContract
from fleeting.testing._run.pytest_plugin import PROVIDER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._run.provider_under_test import ProviderUnderTest
    from fleeting.types import ConnectInfo, Finding


class TestInstanceGroup(InstanceGroupContract):
    """The group that the options select, with the attributes that their file sets."""

    @pytest.fixture(autouse=True)
    def tested(self, pytestconfig: pytest.Config) -> ProviderUnderTest:
        """Set the attributes of this instance of the class; each test has its own instance."""
        tested = self._tested = pytestconfig.stash[PROVIDER]
        for name, value in tested.attributes.items():
            setattr(self, name, value)
        self.secrets = tuple(tested.secrets)
        self.learned = tested.secrets
        return tested

    @pytest.fixture
    @override
    def open_group(
        self, tested: ProviderUnderTest
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open the group with the settings of the file."""
        return tested.open

    @pytest.fixture
    @override
    def check_provider(
        self, tested: ProviderUnderTest
    ) -> Callable[[], Awaitable[Sequence[Finding]]]:
        """Check the group with the settings of the file."""
        return tested.check

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        """Connect as a scaler does, with the connector settings of the file."""
        connector = self._tested.settings.connector
        return await fleeting.connect(await anyio.to_thread.run_sync(info.with_settings, connector))
