"""The built-in provider keeps the contract, with real servers and real connections."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest
from typing_extensions import override

from fleeting._decoding import decode
from fleeting._registry import Registry
from fleeting.testing import InstanceGroupContract
from fleeting.types import GroupSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fleeting.abc import InstanceGroup
    from fleeting.types import Finding

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="`local` needs POSIX processes")


class _LocalContract(InstanceGroupContract):
    instance_timeout = timedelta(seconds=60)
    call_timeout = timedelta(seconds=30)
    affordable = 3
    repeats_operations = True
    page_size = 0
    provider = Registry().provider("local")
    settings: ClassVar[dict[str, object]]

    @pytest.fixture
    def config(self, tmp_path: Path) -> object:
        """Read the settings as those of a configuration file."""
        data = {"root": str(tmp_path / "root"), "max_size": 3, **self.settings}
        return decode(data, self.provider.config_type, where="the test")

    @pytest.fixture
    @override
    def open_group(
        self, config: object
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open the provider."""
        return lambda: self.provider.open(config, GroupSettings())

    @pytest.fixture
    @override
    def check_provider(self, config: object) -> Callable[[], Awaitable[Sequence[Finding]]]:
        """Check the provider."""
        return lambda: self.provider.check(config, GroupSettings())


class TestLocal(_LocalContract):
    """Instances that end with the manager."""

    settings: ClassVar[dict[str, object]] = {}
    keeps_instances = False


class TestLocalPersistent(_LocalContract):
    """Instances that outlive the manager."""

    settings: ClassVar[dict[str, object]] = {"persistent": True, "boot_delay": "20ms"}
