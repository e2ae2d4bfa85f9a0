"""Change an environment: install plugins and check them, or remove a distribution."""

from __future__ import annotations

import re
import signal
import sys
import tomllib
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

from fleeting._references import canonical
from fleeting.errors import InstallError
from fleeting.install.checking import check, installed_plugins
from fleeting.install.commands import Commands, shown
from fleeting.install.environment import RECORDS, choose_installer, installed_distributions, observe
from fleeting.install.requests import OURS, did_you_mean
from fleeting.install.running import run_installer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from fleeting._metadata import PluginEntry
    from fleeting.install.environment import Installed
    from fleeting.install.requests import Request

__all__ = ("Change",)


class Change:
    """One change of the environment of this process; `places` are the options with indexes."""

    def __init__(self, tell: Callable[[str], None], places: Sequence[str] = ()) -> None:
        self._tell = tell
        self._places = places
        environment = observe()
        installer = choose_installer(environment)
        name = RECORDS.get(installer, "")
        self._record = environment.prefix / name
        self._remembered = self._record.read_text(encoding="utf-8") if name else ""
        receipt = self._remembered if name.endswith(".toml") else ""
        self._commands = Commands(environment, installer, tomllib.loads(receipt).get("tool", {}))
        self._before = installed_distributions()

    def command(
        self, requests: Sequence[Request], options: Sequence[str], *, upgrade: bool
    ) -> list[str]:
        """Return the command that installs what is requested."""
        names = {OURS, "taskscaler"}
        # Otherwise an installed plugin may be what is requested, in another version.
        if all(request.distribution for request in requests):
            names |= {canonical(one.distribution) for _, one in installed_plugins()}
        kept = {name: one.version for name, one in self._before.items() if name in names}
        passed = [*self._places, *options]
        return self._commands.install(requests, passed, upgrade=upgrade, kept=kept)

    def install(
        self, command: Sequence[str], requests: Sequence[Request]
    ) -> tuple[list[PluginEntry], list[str]]:
        """Install, or undo it if the check fails; return the plugins and what else changed."""
        with self._interruptions_told():
            self._run(command, did_you_mean(requests))
            after = installed_distributions()
            changed = sorted(name for name in after if after[name] != self._before.get(name))
            plugins, problems = check(requests, changed)
            if problems:
                raise InstallError(f"{'; '.join(problems)}; {self._undone()}")
        entries = [entry for _, entry in plugins]
        carriers = {canonical(entry.distribution) for entry in entries}
        return entries, [name for name in changed if name not in carriers]

    def remove(self, distribution: str) -> list[str]:
        """Remove a distribution, and return those that it required and that stay installed."""
        requirements = metadata.requires(distribution) or []
        with self._interruptions_told():
            self._run(self._commands.remove(distribution))
        after = installed_distributions()
        if distribution in after:
            raise InstallError(f"{distribution} is still installed; see above", retryable=True)
        names = {canonical(re.split(r"[^A-Za-z0-9._-]", one)[0]) for one in requirements}
        return sorted(names & after.keys() - {OURS})

    def _undone(self) -> str:
        """Undo an installation whose check failed, and say what is installed then."""
        self._tell("undoing the installation, because its check failed")
        failed = installed_distributions()
        for undo in self._undo():
            run_installer(undo)
        if self._remembered:
            self._record.write_text(self._remembered, encoding="utf-8")
        left = installed_distributions()
        gone = sorted(failed.keys() - self._before.keys() - left.keys())
        verb = "was" if len(gone) == 1 else "were"
        told = f"{', '.join(gone)} {verb} removed again; " if gone else ""
        return told + self._state()

    def _undo(self) -> list[list[str]]:
        return self._commands.undo(self._before, installed_distributions(), self._places)

    def _run(self, command: Sequence[str], hint: str = "") -> None:
        self._tell(f"running {shown(command)}")
        code = run_installer(command)
        if code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "failed"
            name = self._commands.installer.value
            raise InstallError(f"{name} {how}, see above; {self._state()}{hint}", retryable=True)

    def _state(self) -> str:
        """Say what is installed now, compared to the time before, and how to undo it."""
        after = installed_distributions()
        names = sorted({*self._before, *after})
        parts = (_difference(name, self._before.get(name), after.get(name)) for name in names)
        told = ", ".join(filter(None, parts))
        undo = " && ".join(map(shown, self._undo()))
        if undo:
            return f"{told}; to undo this, run `{undo}`"
        return told or "all packages have the versions that they had before"

    @contextmanager
    def _interruptions_told(self) -> Generator[None]:
        """Treat SIGTERM like Ctrl-C, and say how far the change has come."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            repeat = shown(["fleeting", *sys.argv[1:]])
            self._tell(f"{self._state()}; to repeat the command, run `{repeat}`")
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def _difference(name: str, before: Installed | None, now: Installed | None) -> str:
    """Say what is installed now in place of what was before; empty if that is the same."""
    if now is not None and now.is_same_build(before):
        return ""
    another = "another build of " if before and now and before.version == now.version else ""
    text = f"{another}{name} {now.version} is installed now" if now else f"{name} is removed"
    if before is not None and before.origin:
        text += f" (the earlier one comes back only if {shown([before.origin])} has it)"
    return text
