"""The exact command lines of the installers, each a list of arguments without a shell."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from fleeting._references import canonical
from fleeting.errors import InstallError
from fleeting.install.environment import Environment, Installed, Installer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fleeting.install.requests import Request

__all__ = ("Commands", "shown")

# The part of a URL before the host, and its query: either may hold a password or a token.
_SECRETS = re.compile(r"(?<=://)[^/\s'\"]*(?=@)|(?<=\?)[^\s'\"#]*=[^\s'\"#]*")
# The keys that say where a requirement comes from, and how its URL begins.
_PLACES = {"url": "", "git": "git+"} | dict.fromkeys(("path", "directory", "editable"), "file://")


@dataclass(frozen=True, slots=True)
class Commands:
    """The command lines of one installer for one environment; `uv tool` needs its receipt."""

    environment: Environment
    installer: Installer
    receipt: Mapping[str, Any]

    def _pip(self, verb: str) -> list[str]:
        """Return the beginning of a command that pipx and `uv tool` do not record."""
        if self.installer is Installer.PIP:
            # -P, so that a pip.py in the working directory is not taken for pip.
            return [str(self.environment.python), "-P", "-m", "pip", verb]
        if self.installer is Installer.PIPX:
            return [self.environment.pipx, "runpip", self.environment.prefix.name, verb]
        return [self.environment.uv, "pip", verb, f"--python={self.environment.python}"]

    def install(
        self,
        requests: Sequence[Request],
        options: Sequence[str],
        *,
        upgrade: bool,
        kept: Mapping[str, str],
    ) -> list[str]:
        """Return the command that installs what is requested, and keeps these versions."""
        wanted = [request.requirement for request in requests]
        names = [request.distribution for request in requests if request.distribution]
        is_uv = self.installer in {Installer.UV, Installer.UV_TOOL}
        newer = [f"--upgrade-package={name}" for name in names] if is_uv else ["--upgrade"]
        options = [*(newer if upgrade else []), *options]
        if self.installer is Installer.PIPX:
            # Without --force pipx leaves any installed version as it is.
            passed = [f"--pip-args={shlex.join(options)}"] if options else []
            venv = self.environment.prefix.name
            return [self.environment.pipx, "inject", "--force", venv, *wanted, *passed]
        if self.installer is Installer.UV_TOOL:
            return self._tool(options, wanted, without=names)
        # pip and uv consider an installed distribution only if it is in the command.
        pins = [f"{name}=={kept[name]}" for name in sorted(kept) if name not in names]
        return [*self._pip("install"), *options, *pins, *wanted]

    def _tool(
        self, options: Sequence[str], wanted: Sequence[str], *, without: Sequence[str]
    ) -> list[str]:
        # `uv tool install` replaces the receipt, and removes what the new one does not have.
        main, *others = _receipt_requirements(self.receipt, without=without)
        packages = [f"--with={one}" for one in (*others, *wanted)]
        arguments = dict.fromkeys([*_receipt_options(self.receipt), *options])
        return [self.environment.uv, "tool", "install", *arguments, main, *packages]

    def remove(self, distribution: str) -> list[str]:
        """Return the command that removes one distribution."""
        if self.installer is Installer.PIPX:
            venv = self.environment.prefix.name
            return [self.environment.pipx, "uninject", "--leave-deps", venv, distribution]
        if self.installer is Installer.UV_TOOL:
            return self._tool([], [], without=[distribution])
        return self._uninstall([distribution])

    def _uninstall(self, names: Sequence[str]) -> list[str]:
        yes = ["--yes"] if self.installer is Installer.PIP else []
        return [*self._pip("uninstall"), *yes, *names]

    def undo(
        self, before: Mapping[str, Installed], after: Mapping[str, Installed], places: Sequence[str]
    ) -> list[list[str]]:
        """Return the commands that bring back what was installed before a change."""
        added = sorted(name for name in after if name not in before)
        changed = {n: one for n, one in before.items() if not one.is_same_build(after.get(n))}
        indexed = sorted(f"{n}=={one.version}" for n, one in changed.items() if not one.origin)
        # A place that no longer has the earlier build must not stop the others.
        built = [[one.origin] for one in changed.values() if one.origin]
        # Otherwise both pip and uv leave another build of the same version as it is.
        again = [*self._pip("install"), *places, "--force-reinstall", "--no-deps"]
        installs = [[*again, *wanted] for wanted in (indexed, *built) if wanted]
        return [self._uninstall(added), *installs] if added else installs


def shown(command: Sequence[str]) -> str:
    """Return a command as an operator would type it, without the secrets in URLs."""
    return _SECRETS.sub("****", shlex.join(command))


def _receipt_requirements(receipt: Mapping[str, Any], *, without: Collection[str]) -> list[str]:
    """Return the requirements in a receipt; refuse what a command line cannot repeat."""
    odd = sorted({"constraints", "overrides", "excludes", "build-constraints"} & set(receipt))
    if odd:
        raise InstallError(
            f"`uv tool` installed fleeting with {' and '.join(odd)}, which this command would "
            "drop; run `uv tool install` yourself, with these and with the plugins",
            retryable=True,
        )
    entries = receipt.get("requirements", [])
    return [_requirement(one) for one in entries if canonical(one["name"]) not in without]


def _requirement(entry: Mapping[str, Any]) -> str:
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    text = f"{entry['name']}{extras}"
    place = next((start + entry[key] for key, start in _PLACES.items() if key in entry), "")
    text += f" @ {place}" if place else entry.get("specifier", "")
    return f"{text} ; {entry['marker']}" if entry.get("marker") else text


def _receipt_options(receipt: Mapping[str, Any]) -> list[str]:
    """Return the options in a receipt, as they were given, and its Python."""
    found = [f"--python={receipt['python']}"] if receipt.get("python") else []
    for name, value in receipt.get("options", {}).items():
        for one in cast("list[Any]", value) if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                table = cast("Mapping[str, Any]", one)
                kind = "default-index" if table.get("default") else name
                found.append(f"--{kind}={table.get('url', '')}")
            elif one is not False:
                found.append(f"--{name}" if one is True else f"--{name}={one}")
    return found
