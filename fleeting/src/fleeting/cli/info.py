"""`fleeting info`: what one plugin is, and what can be configured of it."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from fleeting._registry import PluginEntry, Registry
from fleeting.errors import PluginConflict, PluginError, PluginMismatch, PluginNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting._keys import Key
    from fleeting._verification import Plugin, Report

__all__ = ("command",)

LABEL_WIDTH = 12
LONGEST_LINE = 100


class _Facts(NamedTuple):
    """All that is known about a plugin.

    Attributes:
        kind: `provider` or `connector`.
        entry: its metadata.
        summary: what its distribution says about itself.
        homepage: where there is more about it; empty if that is not said.
        report: what its import has shown.
    """

    kind: str
    entry: PluginEntry
    summary: str
    homepage: str
    report: Report


@click.command("info")
@click.argument("name")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of its configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
def command(*, name: str, schema: bool, as_json: bool) -> None:
    """Show what the plugin NAME is, what it can do, and each key of its configuration.

    NAME may have a version, as in aws:1. The plugin is imported, in a process of its own.

    \b
    Examples:
      fleeting info local
      fleeting info aws --schema > aws.schema.json
      fleeting info aws --json | jq -r '.keys[] | select(.required).name'

    Exit code: 0, or 2 if the plugin is not installed or is broken.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    if schema and as_json:
        raise click.UsageError("--schema is JSON already; leave --json out")
    kind, entry = _find(name)
    facts = _ask(kind, entry)
    if schema:
        if kind == "connector":
            raise click.UsageError(
                f"{entry.name} is a connector, which has no keys of its own; see [connector_config]"
            )
        click.echo(json.dumps(facts.report.schema, indent=2, ensure_ascii=False))
    elif as_json:
        click.echo(json.dumps(_plain(facts), indent=2, ensure_ascii=False))
    else:
        width = min(shutil.get_terminal_size().columns, LONGEST_LINE)
        click.echo("\n".join(_lines(facts, width)))


def _find(text: str) -> Plugin:
    """Return the installed plugin that is meant; a provider rather than a connector.

    Raises:
        ConfigError: this names no plugin.
        PluginNotFound: it is not installed.
        PluginMismatch: it is installed in another version.
        PluginConflict: two distributions have it.
    """
    from fleeting._decoding import nearest
    from fleeting._references import parse_reference

    reference = parse_reference(text)
    registry = Registry()
    providers = [entry for entry in registry.providers() if entry.name == reference.name]
    connectors = [entry for entry in registry.connectors() if entry.name == reference.name]
    kind = "connector" if connectors and not providers else "provider"
    claims = providers or connectors
    if not claims:
        known = [entry.name for entry in registry.providers()]
        meant = nearest(reference.name, known)
        hint = f"did you mean {meant!r}? Otherwise " if meant else ""
        raise PluginNotFound(
            "plugin", reference.name, known, f"{hint}try `fleeting install {text}`"
        )
    if len(claims) > 1:
        distributions = [f"{one.distribution} {one.version}" for one in claims]
        raise PluginConflict("plugin", reference.name, distributions)
    [entry] = claims
    if not reference.accepts(entry.version):
        raise PluginMismatch(entry.name, entry.version, str(reference))
    return kind, entry


def _ask(kind: str, entry: PluginEntry) -> _Facts:
    """Import a plugin elsewhere, and return what that and its metadata tell.

    Raises:
        PluginError: it cannot be used.
    """
    import importlib.metadata

    import anyio

    from fleeting._verification import verify_plugins

    reports = anyio.run(verify_plugins, [(kind, entry)])
    report = reports[kind, entry]
    if report.problem:
        raise PluginError(report.problem)
    metadata = importlib.metadata.metadata(entry.distribution)
    urls = dict(url.split(", ", 1) for url in metadata.get_all("Project-URL") or [] if ", " in url)
    # The names of these are free; this is the usual one.
    pages = {name.lower(): url for name, url in urls.items()}
    homepage = (metadata.get_all("Home-page") or [pages.get("homepage", "")])[0]
    summary = (metadata.get_all("Summary") or [""])[0]
    return _Facts(kind, entry, summary, homepage or next(iter(pages.values()), ""), report)


def _plain(facts: _Facts) -> dict[str, Any]:
    """Return the facts as scripts read them."""
    import msgspec

    return {
        "name": facts.entry.name,
        "kind": facts.kind,
        "version": facts.entry.version,
        "distribution": facts.entry.distribution,
        "summary": facts.summary,
        "homepage": facts.homepage,
        "capabilities": facts.report.capabilities,
        "keys": msgspec.to_builtins(facts.report.keys),
        "example": facts.report.example,
    }


def _lines(facts: _Facts, width: int) -> list[str]:
    """Return the facts as people read them."""
    labelled = {
        "name": facts.entry.name,
        "kind": facts.kind,
        "version": facts.entry.version,
        "distribution": facts.entry.distribution,
        "summary": facts.summary,
        "homepage": facts.homepage,
    }
    if facts.kind == "provider":
        labelled["capabilities"] = ", ".join(facts.report.capabilities) or "none"
    lines = [f"{label:<{LABEL_WIDTH}}  {text}" for label, text in labelled.items() if text]
    if facts.kind == "connector":
        return [*lines, "", "It is configured in [runners.autoscaler.connector_config]."]
    lines += [
        "",
        "Keys of [runners.autoscaler.plugin_config]:" if facts.report.keys else "No keys.",
    ]
    for key in facts.report.keys:
        lines += ["", *_key_lines(key, width)]
    return [*lines, "", "Example:", "", *_example(facts.entry.name, facts.report.example)]


def _key_lines(key: Key, width: int) -> Sequence[str]:
    text = f"  {key.name}: {key.type}"
    if key.required:
        text += "; required"
    elif key.default is not None:
        text += f"; default {_toml(key.default)}"
    indent = " " * 6
    return [text, *textwrap.wrap(key.text, width, initial_indent=indent, subsequent_indent=indent)]


def _example(name: str, table: dict[str, Any]) -> list[str]:
    """Return the smallest part of a `config.toml` that the plugin can be used with."""
    lines = ["[runners.autoscaler]", f"plugin = {_toml(name)}"]
    lines += ["", "[runners.autoscaler.plugin_config]"] if table else []
    return [*lines, *(f"{_toml_key(key)} = {_toml(value)}" for key, value in table.items())]


def _toml(value: object) -> str:
    """Return a value as TOML has it, in one line."""
    match value:
        case dict():
            table = cast("dict[str, object]", value)
            pairs = [f"{_toml_key(key)} = {_toml(item)}" for key, item in table.items()]
            return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
        case list():
            return f"[{', '.join(_toml(item) for item in cast('list[object]', value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _toml_key(key: str) -> str:
    from fleeting._decoding import key_path

    return key_path(key)
