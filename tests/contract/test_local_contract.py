"""The built-in provider keeps the contract, with real servers and real connections."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest
from typing_extensions import override

from fleeting.config import decode
from fleeting.registry import Registry
from fleeting.testing import InstanceGroupContract
from fleeting.types import GroupSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fleeting.abc import InstanceGroup

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="`local` needs POSIX processes")


class _LocalContract(InstanceGroupContract):
    instance_timeout = timedelta(seconds=60)
    call_timeout = timedelta(seconds=30)
    affordable = 3
    repeats_operations = True
    config: ClassVar[dict[str, object]]

    @pytest.fixture
    @override
    def open_group(
        self, tmp_path: Path
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open the provider as a configuration file would."""
        provider = Registry().provider("local")
        data = {"root": str(tmp_path / "root"), "max_size": 3, **self.config}
        config = decode(data, provider.config_type, where="the test")
        return lambda: provider.open(config, GroupSettings())


class TestLocal(_LocalContract):
    """Instances that end with the manager."""

    config: ClassVar[dict[str, object]] = {}
    keeps_instances = False


class TestLocalPersistent(_LocalContract):
    """Instances that outlive the manager."""

    config: ClassVar[dict[str, object]] = {"persistent": True, "boot_delay": "20ms"}
