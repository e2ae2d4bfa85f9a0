"""What a plugin author imports, besides `fleeting.abc`, `types` and `errors`.

A whole plugin is one module::

    from fleeting.plugin import hookimpl

    class MyProvider(Provider): ...

    @hookimpl
    def fleeting_provider():
        return MyProvider()

and five lines of TOML in the project that carries it::

    [project.entry-points.fleeting]
    mycloud = "fleeting_plugin_mycloud"

The name of the entry point is the provider's name. A module is imported only
when its name is asked for. A connector is declared likewise, in the group
`fleeting.connectors` under the name of its protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from fleeting.abc import Connector, Provider

__all__ = ("fleeting_connector", "fleeting_provider", "hookimpl", "hookspec")

hookspec = pluggy.HookspecMarker("fleeting")
"""Marks what a plugin may offer; used in this module only."""

hookimpl = pluggy.HookimplMarker("fleeting")
"""Marks the function of a plugin's module that offers something; its name says what."""


@hookspec(firstresult=True)
def fleeting_provider() -> Provider | None:
    """Return the provider of this module; called once, on the module that was asked for."""


@hookspec(firstresult=True)
def fleeting_connector() -> Connector | None:
    """Return the connector of this module; called once, on the module that was asked for."""
