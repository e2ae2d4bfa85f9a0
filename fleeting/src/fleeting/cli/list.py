"""`fleeting list`: the installed plugins, and whether they work.

Without `--verify` it only reads metadata, and imports nothing that is slow to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from fleeting._registry import PluginEntry, Registry
from fleeting._text import is_terminal, say, say_json, show
from fleeting.cli._table import table
from fleeting.errors import PluginConflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from fleeting._references import PluginReference
    from fleeting._verification import Plugin, PluginReport

__all__ = ("Needed", "PluginRow", "assess", "command")

INSTALLED = "installed"
USABLE = "ok"


class Needed(NamedTuple):
    """A plugin that a config file needs.

    Attributes:
        reference: the plugin, as the file names it.
        file: the path of the file.
    """

    reference: PluginReference
    file: str


class PluginRow(NamedTuple):
    """A row of the list: a plugin that is installed or needed.

    Attributes:
        kind: `provider` or `connector`.
        entry: its metadata; without a distribution if it is not installed.
        status: `installed`, `ok`, `missing`, `wrong version`, `conflict` or `broken`.
        problem: why it cannot be used, in one sentence; empty if no problem is known.
        report: the result of importing it; None if it was not imported.
    """

    kind: str
    entry: PluginEntry
    status: str
    problem: str = ""
    report: PluginReport | None = None

    @property
    def document(self) -> dict[str, Any]:
        """Return the row as data for JSON."""
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
@click.option("--verify", is_flag=True, help="Import each plugin in a separate process.")
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="List the plugins that this config.toml needs and that are missing, too.",
)
def command(*, as_json: bool, verify: bool, config: str | None) -> int:
    """List the installed plugins with their versions and distributions.

    Without --verify no plugin is imported, so a listed plugin may still be broken.

    \b
    Examples:
      fleeting list
      fleeting list --verify
      fleeting list --config /etc/gitlab-runner/config.toml
      fleeting list --json | jq -r '.[].name'

    Exit code: 0, 1 if a plugin is missing, broken or in conflict, 2 if the file is not valid.
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

        say_json(json.dumps([row.document for row in rows]))
    else:
        _show(rows, with_status=config is not None)
    return 1 if any(row.problem for row in rows) else 0


def assess(installed: Sequence[Plugin], needed: Iterable[Needed]) -> list[PluginRow]:
    """Return the status of plugins without importing one.

    Args:
        installed: the kind and the metadata of each.
        needed: those that a file needs; each that is not installed gets a row of its own.
    """
    problems: dict[Plugin, tuple[str, str]] = {}
    missing: list[PluginRow] = []
    for reference, file in needed:
        own = [one for one in installed if one[0] == "provider" and one[1].name == reference.name]
        if not own:
            text = f"{file} needs plugin {reference}, which is not installed"
            text += f"; run `fleeting install {reference}`"
            missing.append(
                PluginRow("provider", PluginEntry(reference.name, "", ""), "missing", text)
            )
        for kind, entry in own:
            if not reference.accepts(entry.version):
                text = f"{file} needs plugin {reference}, but {entry.distribution} {entry.version} "
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
        PluginRow(kind, entry, *problems.get((kind, entry), (INSTALLED, "")))
        for kind, entry in installed
    ]
    return sorted(rows + missing, key=lambda row: (row.kind != "provider", row.entry))


def _conflict(kind: str, claims: Iterable[PluginEntry]) -> PluginConflict:
    distributions = [f"{one.distribution} {one.version}" for one in claims]
    noun = "plugin" if kind == "provider" else "connector"
    return PluginConflict(noun, next(iter(claims)).name, distributions)


def _read_needed(config: str) -> list[Needed]:
    """Return the plugins that the groups of a file need, each once.

    Raises:
        ConfigError: the file is not valid.
    """
    from pathlib import Path

    from fleeting._config import configured_groups, plugin_references

    references = plugin_references(configured_groups(Path(config)))
    return [Needed(reference, config) for reference in references]


def _verified(rows: Sequence[PluginRow]) -> list[PluginRow]:
    """Import each installed plugin, and add the results to the rows."""
    import anyio

    from fleeting._verification import verify_plugins

    plugins = [(row.kind, row.entry) for row in rows if row.status == INSTALLED]
    draws = is_terminal(err=True)

    def show_progress(done: int) -> None:
        if draws:
            # The progress line is removed after the last plugin.
            end = "\r\033[K" if done == len(plugins) else ""
            show(f"\rverified {done} of {len(plugins)} plugins{end}", err=True)

    async def verify() -> Mapping[Plugin, PluginReport]:
        return await verify_plugins(plugins, on_verified=show_progress)

    reports = anyio.run(verify)
    return [_with_report(row, reports.get((row.kind, row.entry))) for row in rows]


def _with_report(row: PluginRow, report: PluginReport | None) -> PluginRow:
    if report is None:
        return row
    status = "broken" if report.problem else USABLE
    return row._replace(status=status, problem=report.problem, report=report)


def _show(rows: Sequence[PluginRow], *, with_status: bool) -> None:
    with_status = with_status or any(row.status != INSTALLED for row in rows)
    with_report = any(row.report is not None for row in rows)
    heading = ["NAME", "KIND", "VERSION", "DISTRIBUTION"]
    heading += ["STATUS"] * with_status + ["IMPORT", "CAPABILITIES", "KEYS"] * with_report
    lines: list[list[str]] = []
    for row in rows:
        line = [row.entry.name, row.kind, row.entry.version or "-", row.entry.distribution or "-"]
        line += [row.status] * with_status + _findings(row.report) * with_report
        lines.append(line)
    for text in table(heading, lines).splitlines():
        say(text)
    for problem in dict.fromkeys(row.problem for row in rows if row.problem):
        say(f"error: {problem}", err=True)


def _findings(report: PluginReport | None) -> list[str]:
    if report is None or report.problem:
        return ["-", "-", "-"]
    # Keys inside tables are left to `fleeting info`.
    keys = [key.name for key in report.keys if "." not in key.name]
    capabilities = ", ".join(report.capabilities) or "-"
    return [f"{report.import_seconds:.2f} s", capabilities, ", ".join(keys) or "-"]
