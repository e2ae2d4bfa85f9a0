"""The tests that `pytest --fleeting-provider NAME` runs: the contract of an installed provider.

It is imported by pytest alone, as the one file of tests of such a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

import fleeting
from fleeting.testing import InstanceGroupContract
from fleeting.testing._pytest_plugin import TARGET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._target import Target
    from fleeting.types import ConnectInfo, Finding


class TestInstanceGroup(InstanceGroupContract):
    """The group that the options name, with the attributes that their file sets."""

    @pytest.fixture(autouse=True)
    def target(self, pytestconfig: pytest.Config) -> Target:
        """Make this instance of the tests what the file says; each test has its own."""
        target = self._target = pytestconfig.stash[TARGET]
        for name, value in target.attributes.items():
            setattr(self, name, value)
        self.secrets = tuple(target.secrets)
        self.learned = target.secrets
        return target

    @pytest.fixture
    @override
    def open_group(
        self, target: Target
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open it as a configuration file would."""
        return target.open

    @pytest.fixture
    @override
    def check_provider(self, target: Target) -> Callable[[], Awaitable[Sequence[Finding]]]:
        """Check it likewise."""
        return target.check

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        """Connect as a scaler would: what the operator says wins."""
        connector = self._target.settings.connector
        return await fleeting.connect(await anyio.to_thread.run_sync(info.with_settings, connector))
