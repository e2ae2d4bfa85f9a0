"""Check that what was installed registers what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting._references import canonical
from fleeting._registry import Registry
from fleeting.errors import PluginBroken

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleeting._verification import Plugin
    from fleeting.install.requests import Request

__all__ = ("check", "installed_plugins")


def installed_plugins() -> list[Plugin]:
    """Return the kind and the metadata of each installed plugin."""
    providers: list[Plugin] = [("provider", entry) for entry in Registry().providers()]
    return [*providers, *(("connector", entry) for entry in Registry().connectors())]


def _missing(request: Request, plugins: Sequence[Plugin], changed: Collection[str]) -> str:
    """Return a sentence if no plugin answers the request, or else an empty text."""
    # If only a build tells the name of the distribution, it is one of those that changed.
    homes = {request.distribution} if request.distribution else {*changed}
    names = sorted(one.name for _, one in plugins if canonical(one.distribution) in homes)
    what = request.distribution or request.requirement
    if homes and not names:
        return f"{what} registers no plugin"
    if request.plugin and request.plugin not in names:
        return f"{what} does not register {request.plugin!r}, but {', '.join(names)}"
    return ""


def check(requests: Sequence[Request], changed: Collection[str]) -> tuple[list[Plugin], list[str]]:
    """Import the plugins of an installation, and return them with a sentence for each problem."""
    import anyio

    from fleeting._verification import verify_plugins

    plugins = installed_plugins()
    problems = [_missing(request, plugins, changed) for request in requests]
    if any(problems):
        return [], [*filter(None, problems)]
    homes = {*changed, *(request.distribution for request in requests)}
    ours = [(kind, one) for kind, one in plugins if canonical(one.distribution) in homes]
    reports = anyio.run(verify_plugins, ours).values()
    # The advice to reinstall a broken plugin does not fit one that is removed again.
    found = [one.problem.removesuffix(PluginBroken.ADVICE) for one in reports if one.problem]
    return ours, list(dict.fromkeys(found))
