"""How a plugin registers its provider or connector.

A whole plugin is one module::

    from fleeting.plugin import hookimpl

    class MyProvider(Provider[MyConfig]): ...

    @hookimpl
    def fleeting_provider():
        return MyProvider()

and an entry point in the `pyproject.toml` of its distribution::

    [project.entry-points.fleeting]
    mycloud = "fleeting_plugin_mycloud"

The name of the entry point is the provider's name. The module is imported only
when that name is requested. A connector is registered in the same way, in the
entry-point group `fleeting.connectors`, under the name of its protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from fleeting.abc import Connector, Provider

__all__ = ("fleeting_connector", "fleeting_provider", "hookimpl")

_hookspec = pluggy.HookspecMarker("fleeting")

hookimpl = pluggy.HookimplMarker("fleeting")
"""Decorates the function in a plugin's module that implements one of the hooks below."""


@_hookspec(firstresult=True)
def fleeting_provider() -> Provider | None:
    """Return the provider of this module. Called once, in the module that was requested."""


@_hookspec(firstresult=True)
def fleeting_connector() -> Connector | None:
    """Return the connector of this module. Called once, in the module that was requested."""
