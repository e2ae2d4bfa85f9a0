"""`fleeting list`: which plugins are installed, and whether they can be used.

Without `--verify` it reads metadata only, and imports nothing that is slow to import.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from fleeting._registry import PluginEntry, Registry
from fleeting.cli._table import table
from fleeting.errors import PluginConflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from fleeting._references import PluginReference
    from fleeting._verification import Plugin, Report

__all__ = ("Needed", "Row", "assess", "command")

INSTALLED = "installed"
USABLE = "ok"


class Needed(NamedTuple):
    """A plugin that a file refers to.

    Attributes:
        reference: how it does so.
        file: its name.
    """

    reference: PluginReference
    file: str


class Row(NamedTuple):
    """A plugin that is installed, or should be.

    Attributes:
        kind: `provider` or `connector`.
        entry: its metadata; without a distribution if it is missing.
        status: a word for it.
        problem: why it cannot be used, in one sentence; empty if nothing is known to be wrong.
        report: what its import has shown; None if it was not imported.
    """

    kind: str
    entry: PluginEntry
    status: str
    problem: str = ""
    report: Report | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """Return it as scripts read it."""
        shown: dict[str, Any] = {"name": self.entry.name, "kind": self.kind}
        shown |= {"version": self.entry.version, "distribution": self.entry.distribution}
        shown |= {"status": self.status, "problem": self.problem or None}
        if self.report is not None:
            shown["capabilities"] = self.report.capabilities
            shown["keys"] = [key.name for key in self.report.keys]
            shown["import_seconds"] = round(self.report.import_seconds, 3)
        return shown


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
@click.option("--verify", is_flag=True, help="Import each plugin, in a process of its own.")
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="A config.toml: show what of its plugins is missing, too.",
)
def command(*, as_json: bool, verify: bool, config: str | None) -> int:
    """Show the installed plugins: name, kind, version, and the distribution that carries each.

    No plugin is imported unless --verify says so; one that is shown can still be broken.

    \b
    Examples:
      fleeting list
      fleeting list --verify
      fleeting list --config /etc/gitlab-runner/config.toml
      fleeting list --json | jq -r '.[].name'

    Exit code: 0, or 1 if a plugin is missing, broken, or claimed by two distributions.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    registry = Registry()
    installed: list[Plugin] = [("provider", entry) for entry in registry.providers()]
    installed += [("connector", entry) for entry in registry.connectors()]
    needed = _read_needed(config) if config is not None else []
    rows = assess(installed, needed)
    if verify:
        rows = _verified(rows)
    if as_json:
        import json

        click.echo(json.dumps([row.plain for row in rows], indent=2))
    else:
        _show(rows, with_status=config is not None)
    return 1 if any(row.problem for row in rows) else 0


def assess(installed: Sequence[Plugin], needed: Iterable[Needed]) -> list[Row]:
    """Return what can be said about plugins without importing one.

    Args:
        installed: the kind and the metadata of each.
        needed: what a file refers to; one that is not installed gets a row of its own.
    """
    problems: dict[Plugin, tuple[str, str]] = {}
    missing: list[Row] = []
    for reference, file in needed:
        own = [one for one in installed if one[0] == "provider" and one[1].name == reference.name]
        if not own:
            text = f"{file} needs plugin {reference}, which is not installed"
            text += f"; run `fleeting install {reference}`"
            missing.append(Row("provider", PluginEntry(reference.name, "", ""), "missing", text))
        for kind, entry in own:
            if not reference.accepts(entry.version):
                text = f"{file} needs plugin {reference}, and {entry.distribution} {entry.version} "
                text += f"is installed; run `fleeting install {reference}`"
                problems[kind, entry] = "wrong version", text
    claims: dict[tuple[str, str], list[PluginEntry]] = {}
    for kind, entry in installed:
        claims.setdefault((kind, entry.name), []).append(entry)
    for (kind, _), entries in claims.items():
        if len(entries) > 1:
            text = str(_conflict(kind, entries))
            problems |= {(kind, entry): ("conflict", text) for entry in entries}
    rows = [
        Row(kind, entry, *problems.get((kind, entry), (INSTALLED, ""))) for kind, entry in installed
    ]
    return sorted(rows + missing, key=lambda row: (row.kind != "provider", row.entry))


def _conflict(kind: str, claims: Iterable[PluginEntry]) -> PluginConflict:
    distributions = [f"{one.distribution} {one.version}" for one in claims]
    noun = "plugin" if kind == "provider" else "connector"
    return PluginConflict(noun, next(iter(claims)).name, distributions)


def _read_needed(config: str) -> list[Needed]:
    """Return what the groups of a file refer to, each once.

    Raises:
        ConfigError: the file cannot be used.
    """
    from pathlib import Path

    from fleeting._config import configured_groups, plugin_references

    references = plugin_references(configured_groups(Path(config)))
    return [Needed(reference, config) for reference in references]


def _verified(rows: Sequence[Row]) -> list[Row]:
    """Import what may be usable, and add what that has shown."""
    import anyio

    from fleeting._verification import verify_plugins

    plugins = [(row.kind, row.entry) for row in rows if row.status == INSTALLED]
    is_watched = sys.stderr.isatty()

    def show_progress(done: int) -> None:
        if is_watched:
            # The line is for those who wait, and goes with the last of them.
            end = "\r\033[K" if done == len(plugins) else ""
            click.echo(f"\rverified {done} of {len(plugins)} plugins{end}", nl=False, err=True)

    async def verify() -> Mapping[Plugin, Report]:
        return await verify_plugins(plugins, on_verified=show_progress)

    reports = anyio.run(verify)
    return [_with_report(row, reports.get((row.kind, row.entry))) for row in rows]


def _with_report(row: Row, report: Report | None) -> Row:
    if report is None:
        return row
    status = "broken" if report.problem else USABLE
    return row._replace(status=status, problem=report.problem, report=report)


def _show(rows: Sequence[Row], *, with_status: bool) -> None:
    with_status = with_status or any(row.status != INSTALLED for row in rows)
    with_report = any(row.report is not None for row in rows)
    heading = ["NAME", "KIND", "VERSION", "DISTRIBUTION"]
    heading += ["STATUS"] * with_status + ["IMPORT", "CAPABILITIES", "KEYS"] * with_report
    lines: list[list[str]] = []
    for row in rows:
        line = [row.entry.name, row.kind, row.entry.version or "-", row.entry.distribution or "-"]
        line += [row.status] * with_status + _findings(row.report) * with_report
        lines.append(line)
    click.echo(table(heading, lines))
    sys.stdout.flush()
    for problem in dict.fromkeys(row.problem for row in rows if row.problem):
        click.echo(f"error: {problem}", err=True)


def _findings(report: Report | None) -> list[str]:
    if report is None or report.problem:
        return ["-", "-", "-"]
    # The keys in a table are left to `fleeting info`.
    keys = [key.name for key in report.keys if "." not in key.name]
    capabilities = ", ".join(report.capabilities) or "-"
    return [f"{report.import_seconds:.2f} s", capabilities, ", ".join(keys) or "-"]
