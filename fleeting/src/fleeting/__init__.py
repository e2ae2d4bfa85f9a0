"""One interface to a group of machines, and to each machine in it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleeting.abc import Connection
    from fleeting.registry import Registry
    from fleeting.types import ConnectInfo

__all__ = ("__version__", "connect")

__version__ = "1.0.0"


async def connect(info: ConnectInfo) -> Connection:
    """Connect to an instance by its protocol.

    Args:
        info: from `InstanceGroup.connect_info`, with the operator's settings merged in.

    Returns:
        A connection, which is also an async context manager that closes itself.

    Raises:
        PluginError: there is no usable connector for the protocol.
        ConnectorError: the connection did not come about; see `Connector.connect`.
    """
    return await _registry().connector(info.protocol).connect(info)


@functools.cache
def _registry() -> Registry:
    """Look for the installed plugins once, not for each connection."""
    # Imported late so that asking for the version costs nothing.
    from fleeting.registry import Registry

    return Registry()
