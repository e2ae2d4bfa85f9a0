"""The built-in provider keeps the contract, with real servers and real connections."""

from __future__ import annotations

import json
import socket
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import anyio
import pytest
from typing_extensions import override

from fleeting._decoding import decode
from fleeting._registry import Registry
from fleeting.local import LocalConfig
from fleeting.testing import InstanceGroupContract
from fleeting.types import GroupSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fleeting.abc import InstanceGroup
    from fleeting.types import Finding

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="`local` needs POSIX processes")


PROVIDER = Registry().provider("local")


@pytest.fixture(scope="module")
def warm_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep a persistent server running: it stays while a manager is connected."""
    root = tmp_path_factory.mktemp("local")
    config = LocalConfig(root=root, persistent=True)
    with socket.socket(socket.AF_UNIX) as manager:

        async def connect() -> None:
            async with PROVIDER.open(config, GroupSettings()):
                manager.connect(json.loads((root / "server.json").read_text())["socket"])
                # Once it has an answer, the server knows of this manager.
                manager.sendall(b'{"serial": 1, "request": "greet"}\n')
                manager.recv(4096)

        anyio.run(connect)
        yield root


class _LocalContract(InstanceGroupContract):
    instance_timeout = timedelta(seconds=60)
    call_timeout = timedelta(seconds=30)
    affordable = 3
    repeats_operations = True
    page_size = 0
    provider = PROVIDER
    settings: ClassVar[dict[str, object]]

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return the root of the group."""
        return tmp_path / "root"

    @pytest.fixture
    def config(self, root: Path) -> object:
        """Decode the settings like those of a configuration file."""
        data = {"root": str(root), "max_size": 3, **self.settings}
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


@pytest.mark.long
class TestLocal(_LocalContract):
    """Instances that end with the manager: each test starts a server, and some start many."""

    settings: ClassVar[dict[str, object]] = {}
    keeps_instances = False


class TestLocalPersistent(_LocalContract):
    """Instances that outlive the manager. All tests use one server."""

    settings: ClassVar[dict[str, object]] = {"persistent": True, "boot_delay": "20ms"}

    @pytest.fixture
    @override
    def root(self, warm_root: Path) -> Path:
        """Return the root of the one server."""
        return warm_root
