"""The whole of an installation and of a removal, step by step."""

from __future__ import annotations

import os
import re
import signal
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from typing import TYPE_CHECKING, Any

from fleeting._references import canonical, parse_reference
from fleeting._registry import Registry
from fleeting.errors import InstallError, PluginNotFound
from fleeting.install import commands
from fleeting.install.contents import (
    check_plugins,
    contents_of,
    metadata_folders,
    planned_by_pip,
    planned_by_uv,
)
from fleeting.install.credentials import write_netrc
from fleeting.install.environment import Environment, Facts, Keeper, choose_installer, look_around
from fleeting.install.failures import explain, redacted
from fleeting.install.guard import alone, interruptible, scratch_folder
from fleeting.install.requests import holder, renamed
from fleeting.install.running import Outcome, run_installer
from fleeting.install.suggestions import fetch, index_of, listed_plugins, near_names
from fleeting.install.undo import prepare_undo, undone_on_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from fleeting._registry import PluginEntry
    from fleeting.install.contents import Contents, Planned
    from fleeting.install.credentials import Credential
    from fleeting.install.requests import Wish

__all__ = ("Installation", "Manner", "Removal", "installed_plugins")

# The distribution whose plugins are built in, and that of the command which needs them.
OURS = "fleeting"
_FOLLOWERS = (OURS, "taskscaler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How something is installed, whatever it is.

    Attributes:
        sources: where from.
        credentials: for the hosts that want them.
        tell: says a sentence on the way.
        upgrade: whether what is there is replaced by something newer.
        verbose: whether all that the installer prints is shown, terminal or not.
    """

    tell: Callable[[str], None]
    sources: commands.Sources = field(default_factory=commands.Sources)
    credentials: Sequence[Credential] = ()
    upgrade: bool = False
    verbose: bool = False

    @property
    def secrets(self) -> list[str]:
        """Return what must never be seen."""
        return [credential.password for credential in self.credentials]


def installed_plugins() -> list[PluginEntry]:
    """Return the providers and the connectors that are installed."""
    registry = Registry()
    return [*registry.providers(), *registry.connectors()]


def _receipt(facts: Facts) -> Mapping[str, Any]:
    path = facts.prefix / "uv-receipt.toml"
    table: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
    return table


def _lists(facts: Facts) -> list[Path]:
    return [facts.prefix / name for name in sorted(facts.files)]


def _all_names(facts: Facts) -> list[str]:
    return list(metadata_folders(facts.site).values())


def _installed(facts: Facts) -> dict[str, Distribution]:
    return {name: Distribution.at(path) for path, name in metadata_folders(facts.site).items()}


class _Work:
    """What an installation and a removal share: the environment, and running its installer."""

    def __init__(self, manner: Manner, facts: Facts | None = None) -> None:
        self._manner = manner
        self._environment: Environment = choose_installer(facts or look_around())
        self._facts = self._environment.facts
        self._lock = -1

    @contextmanager
    def _working(self) -> Generator[Path]:
        """Have the environment alone, and a folder to work in."""
        site = self._facts.site
        with interruptible(), alone(site, self._manner.tell) as lock:
            self._lock = lock
            with scratch_folder(site) as scratch:
                yield scratch

    def _run(self, command: Sequence[str], scratch: Path, *, show: bool) -> Outcome:
        netrc = scratch / "netrc"
        if self._manner.credentials:
            entries = {entry.host: entry for entry in self._manner.credentials}
            # The default, which may be among the user's own, has to be the last.
            write_netrc(netrc, sorted(entries.values(), key=lambda one: one.host == "default"))
        environ = commands.child_environment(
            os.environ, netrc if self._manner.credentials else None
        )
        log = scratch / "pip.log"
        log.unlink(missing_ok=True)
        # What went wrong on the network stands in pip's log alone.
        environ["PIP_LOG"] = str(log)
        outcome = run_installer(
            command,
            environ,
            show=self._manner.verbose or show,
            secrets=self._manner.secrets,
            files=[self._lock],
        )
        if outcome.code == 0 or not log.exists():
            return outcome
        told = re.findall(r"Could not fetch URL.*", log.read_text(errors="replace"))
        return Outcome(outcome.code, "\n".join([outcome.output, *told]))

    def _explained(self, outcome: Outcome) -> InstallError:
        if outcome.code < 0:
            name = signal.Signals(-outcome.code).name
            return InstallError(
                f"the installer was ended by {name}, perhaps for lack of memory; everything is as "
                "it was before",
                retryable=True,
            )
        return explain(redacted(outcome.output, self._manner.secrets), self._near)

    def _near(self, name: str) -> list[str]:
        known = [entry.name for entry in installed_plugins()]
        index = index_of(self._manner.sources, os.environ, uses_pip=self._environment.uses_pip)
        if index:
            _, page = fetch(index.rstrip("/") + "/", self._manner.credentials)
            known += listed_plugins(page)
        return near_names(name, known)

    def _by_hand(self, receipt: Mapping[str, Any], names: Sequence[str]) -> list[str]:
        """Return the other plugins that `uv tool` knows nothing of, and so would drop."""
        known = {canonical(entry["name"]) for entry in receipt.get("requirements", [])}
        there = {one.name for one in contents_of(self._facts.site) if one.plugins}
        return sorted(there - known - {*names, *_FOLLOWERS})

    def _is_watched(self) -> bool:
        import sys

        return sys.stderr.isatty()


class Installation(_Work):
    """Installs plugins, all of them or none."""

    def preview(self, wishes: Sequence[Wish]) -> str:
        """Return the command that would be run, having looked for what is asked for.

        Raises:
            InstallError: it cannot be had.
        """
        wishes = self._pending(wishes)
        if not wishes and not self._manner.sources.requirement_files:
            return ""
        with self._working() as scratch:
            found = self._look(wishes, scratch)
            if not found.planned:
                return ""
            return redacted(commands.shown(self._command(found)))

    def run(self, wishes: Sequence[Wish]) -> list[Contents]:
        """Install what is not there yet.

        Returns:
            What was installed, dependencies too.

        Raises:
            InstallError: it could not be installed; the environment is as it was.
        """
        if not self._pending(wishes, told=True) and not self._manner.sources.requirement_files:
            return []
        with self._working() as scratch:
            # Whoever held the lock before may have installed it.
            wishes = self._pending(wishes)
            if not wishes and not self._manner.sources.requirement_files:
                return []
            found = self._look(wishes, scratch)
            if not found.planned:
                self._manner.tell("nothing to do: what is installed fits already")
                return []
            self._change(found, scratch)
            return found.contents

    def _pending(self, wishes: Sequence[Wish], *, told: bool = False) -> list[Wish]:
        """Return what is not there, or is to be upgraded."""
        entries = installed_plugins()
        pending: list[Wish] = []
        for wish in wishes:
            owner = holder(wish, entries)
            satisfied = wish.is_satisfied(entries)
            version = next((one.version for one in entries if one.name == wish.plugin), "")
            if canonical(owner) == OURS:
                if not satisfied:
                    raise InstallError(
                        f"{wish.plugin} is built in, in version {version}; for another one, "
                        "install another version of fleeting"
                    )
                if told:
                    self._manner.tell(f"{wish.plugin} {version} is built in")
            elif satisfied and not self._manner.upgrade:
                if told:
                    self._manner.tell(f"{wish.plugin} {version} is installed already")
            else:
                pending.append(renamed(wish, owner))
        return pending

    def _look(self, wishes: Sequence[Wish], scratch: Path) -> _Found:
        """Find what would be installed, and try it in a folder beside the environment."""
        changing = {wish.distribution for wish in wishes}
        kept = () if self._manner.sources.requirement_files else self._kept(changing)
        upgrade = tuple(sorted(changing - {""})) if self._manner.upgrade else ()
        report = scratch / "report.json"
        command = commands.resolution(
            self._environment,
            [wish.requirement for wish in wishes],
            kept,
            self._manner.sources,
            report=report,
            upgrade=upgrade,
        )
        outcome = self._run(command, scratch, show=False)
        if outcome.code:
            raise self._explained(outcome)
        if self._environment.uses_pip:
            planned = planned_by_pip(report.read_text(encoding="utf-8"))
        else:
            planned = planned_by_uv(outcome.output)
        exact = _exact(wishes, planned)
        contents = self._try(wishes, planned, scratch) if planned else []
        if contents and not wishes and not any(one.plugins for one in contents):
            files = " and ".join(self._manner.sources.requirement_files)
            raise InstallError(f"{files} names no plugin, so nothing was installed")
        installed = [one for one in contents_of(self._facts.site) if one.name in changing]
        check_plugins(wishes, [*contents, *installed], installed_plugins())
        return _Found(
            planned=planned,
            contents=contents,
            exact=exact,
            asked=tuple(wish.requirement for wish in wishes),
            names=tuple(sorted({*changing, *(one.name for one in planned if one.is_direct)})),
            kept=kept,
            upgrade=upgrade,
        )

    def _kept(self, changing: set[str]) -> tuple[str, ...]:
        """Return what works now, which no new plugin may break."""
        return tuple(
            f"{one.name}=={one.version}"
            for one in sorted(contents_of(self._facts.site), key=lambda one: one.name)
            if (one.plugins or one.name in _FOLLOWERS) and one.name not in changing
        )

    def _try(
        self, wishes: Sequence[Wish], planned: Sequence[Planned], scratch: Path
    ) -> list[Contents]:
        folder = scratch / "trial"
        direct = [wish.requirement for wish in wishes if wish.is_direct]
        pins = [f"{one.name}=={one.version}" for one in planned if not one.is_direct]
        if self._manner.sources.requirement_files:
            pins = direct = []  # The files say all, with their hashes.
        command = commands.trial(self._environment, [*pins, *direct], self._manner.sources, folder)
        outcome = self._run(command, scratch, show=self._is_watched())
        if outcome.code:
            raise self._explained(outcome)
        coming = {one.name for one in planned}
        return [one for one in contents_of(folder) if one.name in coming]

    def _command(self, found: _Found) -> list[str]:
        is_tool = self._environment.keeper is Keeper.UV_TOOL
        receipt = _receipt(self._facts) if is_tool else None
        by_hand = self._by_hand(receipt, found.names) if receipt is not None else []
        wanted = commands.Change(
            exact=found.exact,
            asked=(*by_hand, *found.asked),
            kept=found.kept,
            receipt=receipt,
            upgrade=found.upgrade,
            names=found.names,
        )
        return commands.change(self._environment, wanted, self._manner.sources)

    def _change(self, found: _Found, scratch: Path) -> None:
        command = self._command(found)
        changed = [one.name for one in found.contents]
        if self._environment.keeper is not Keeper.NOBODY:
            changed += _all_names(self._facts)
        prepare_undo(
            scratch,
            self._facts,
            changed=changed,
            coming=scratch / "trial",
            lists=_lists(self._facts),
        )
        before = self._complaints(scratch)
        with undone_on_failure(scratch):
            outcome = self._run(command, scratch, show=self._is_watched())
            if outcome.code:
                raise self._explained(outcome)
            if worse := self._complaints(scratch) - before:
                raise InstallError(f"it does not go together: {'; '.join(sorted(worse))}")
            there = contents_of(self._facts.site)
            lacking = [one.name for one in found.contents if one.plugins and one not in there]
            if lacking:
                raise InstallError(
                    f"the installer succeeded, and {', '.join(lacking)} is not there; everything "
                    "is as it was before"
                )

    def _complaints(self, scratch: Path) -> set[str]:
        """Return what is installed without all that it needs.

        It matters only where a file says exactly what is installed: otherwise that everything
        goes on to work is a condition of what the installer looks for.
        """
        if not self._manner.sources.requirement_files:
            return set()
        outcome = self._run(commands.check(self._environment), scratch, show=False)
        lines = {line.rstrip(".") for line in outcome.output.splitlines()}
        return {line for line in lines if "requirement" in line or " requires " in line}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What an installation would bring."""

    planned: Sequence[Planned]
    contents: list[Contents]
    exact: tuple[str, ...]
    asked: tuple[str, ...]
    names: tuple[str, ...]
    kept: tuple[str, ...]
    upgrade: tuple[str, ...]


def _exact(wishes: Sequence[Wish], planned: Sequence[Planned]) -> tuple[str, ...]:
    versions = {one.name: one.version for one in planned if not one.is_direct}
    found: list[str] = []
    for wish in wishes:
        if wish.distribution in versions and not wish.is_direct:
            extras = re.search(r"\[[^\]]*\]", wish.requirement)
            name = wish.distribution + (extras[0] if extras else "")
            found.append(f"{name}=={versions[wish.distribution]}")
        else:
            found.append(wish.requirement)
    return tuple(found)


class Removal(_Work):
    """Removes a plugin, by removing the distribution that carries it."""

    def __init__(self, word: str, manner: Manner) -> None:
        reference = parse_reference(word)
        entries = installed_plugins()
        whole = [one for one in entries if canonical(one.distribution) == canonical(word)]
        claims = whole or [one for one in entries if one.name == reference.name]
        fitting = [one for one in claims if reference.accepts(one.version)]
        found = {canonical(one.distribution): one for one in fitting}
        if not found:
            known = {f"{one.name} {one.version}" for one in claims}
            known = known or {one.name for one in entries}
            hint = "there is nothing to remove"
            raise PluginNotFound("plugin", str(reference), sorted(known), hint)
        name = next(iter(found.values())).name
        if len(found) > 1:
            raise InstallError(
                f"{name} is carried by {' and by '.join(found)}; say which of these packages to "
                f"remove, as in `fleeting uninstall {next(iter(found))}`"
            )
        if OURS in found:
            raise InstallError(f"{name} is built into fleeting, and stays as long as fleeting does")
        super().__init__(manner)
        self.distribution, self.entry = next(iter(found.items()))
        whole = [one for one in entries if canonical(one.distribution) == self.distribution]
        self.also = sorted({one.name for one in whole} - {name})
        self._refuse_if_needed(name)

    def _refuse_if_needed(self, name: str) -> None:
        needing = [
            name
            for name, found in _installed(self._facts).items()
            if self.distribution in _required(found)
        ]
        if needing:
            raise InstallError(
                f"{', '.join(sorted(needing))} needs {self.distribution}, which carries {name}; "
                "uninstall that first"
            )

    def run(self) -> list[str]:
        """Remove it.

        Returns:
            What it needed and is still installed, though perhaps nobody else needs it.

        Raises:
            InstallError: it could not be removed; the environment is as it was.
        """
        with self._working() as scratch:
            facts = self._facts
            before = _installed(facts)
            if self.distribution not in before:
                raise InstallError(
                    f"{self.distribution} is not in {facts.site}: it comes from another folder, or "
                    "was removed meanwhile"
                )
            needed = _required(before[self.distribution])
            prepare_undo(
                scratch,
                facts,
                changed=[self.distribution] if self._is_plain() else _all_names(facts),
                coming=None,
                lists=_lists(facts),
            )
            with undone_on_failure(scratch):
                outcome = self._run(self._command(), scratch, show=False)
                if outcome.code:
                    raise self._explained(outcome)
                there = {one.name for one in contents_of(facts.site)}
                if self.distribution in there:
                    raise InstallError(f"{self.distribution} could not be removed")
            others = [
                _required(found)
                for name, found in before.items()
                if name != self.distribution and name in there
            ]
            return sorted((needed & there) - set[str]().union(*others) - {OURS})

    def _command(self) -> list[str]:
        is_tool = self._environment.keeper is Keeper.UV_TOOL
        receipt = _receipt(self._facts) if is_tool else None
        by_hand = self._by_hand(receipt, [self.distribution]) if receipt is not None else []
        return commands.removal(self._environment, self.distribution, receipt, by_hand)

    def _is_plain(self) -> bool:
        return self._environment.keeper is Keeper.NOBODY


def _required(distribution: Distribution) -> set[str]:
    """Return the names of what a distribution requires, without what only an extra needs."""
    try:
        requirements = distribution.requires or []
    except UnicodeDecodeError:
        return set()  # Nobody could say what it requires.
    plain = (text for text in requirements if not re.search(r"\bextra\s*==", text))
    return {canonical(re.split(r"[^A-Za-z0-9._-]", text.strip())[0]) for text in plain}
