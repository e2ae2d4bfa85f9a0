"""`fleeting info`: one plugin, and the keys of its configuration."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from fleeting._registry import PluginEntry, Registry
from fleeting._text import say, say_json
from fleeting.errors import PluginConflict, PluginError, PluginMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting._keys import Key
    from fleeting._verification import Plugin, PluginReport

__all__ = ("command",)

LABEL_WIDTH = 12
LONGEST_LINE = 100


class _PluginInfo(NamedTuple):
    """A plugin, described by its metadata and by importing it.

    Attributes:
        kind: `provider` or `connector`.
        entry: its metadata.
        summary: of its distribution; may be empty.
        homepage: of its distribution; may be empty.
        report: the result of importing it.
    """

    kind: str
    entry: PluginEntry
    summary: str
    homepage: str
    report: PluginReport


@click.command("info")
@click.argument("name")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of its configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
def command(*, name: str, schema: bool, as_json: bool) -> None:
    """Describe the plugin NAME: its version, its capabilities and the keys of its configuration.

    NAME may have a version, as in aws:1. The plugin is imported in a separate process.

    \b
    Examples:
      fleeting info local
      fleeting info aws --schema > aws.schema.json
      fleeting info aws --json | jq -r '.keys[] | select(.required).name'

    Exit code: 0, or 2 if the plugin is missing or broken.
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone
    if schema and as_json:
        raise click.UsageError("--schema already prints JSON; drop --json")
    kind, entry = _find(name)
    info = _describe(kind, entry)
    if schema:
        if kind == "connector":
            raise click.UsageError(
                f"{entry.name} is a connector and has no keys of its own; see [connector_config]"
            )
        say_json(json.dumps(info.report.schema, indent=2, ensure_ascii=False))
    elif as_json:
        say_json(json.dumps(_document(info), indent=2, ensure_ascii=False))
    else:
        width = min(shutil.get_terminal_size().columns, LONGEST_LINE)
        for line in _lines(info, width):
            say(line)


def _find(text: str) -> Plugin:
    """Return the installed plugin of this name; a provider rather than a connector.

    Raises:
        ConfigError: the name is not valid.
        PluginNotFound: it is not installed.
        PluginMismatch: it is installed in another version.
        PluginConflict: two distributions provide it.
    """
    from fleeting._references import parse_reference

    reference = parse_reference(text)
    registry = Registry()
    providers = [entry for entry in registry.providers() if entry.name == reference.name]
    connectors = [entry for entry in registry.connectors() if entry.name == reference.name]
    kind = "connector" if connectors and not providers else "provider"
    claims = providers or connectors
    if not claims:
        raise registry.not_found(reference)
    if len(claims) > 1:
        distributions = [f"{one.distribution} {one.version}" for one in claims]
        raise PluginConflict("plugin", reference.name, distributions)
    [entry] = claims
    if not reference.accepts(entry.version):
        raise PluginMismatch(entry.name, entry.version, str(reference))
    return kind, entry


def _describe(kind: str, entry: PluginEntry) -> _PluginInfo:
    """Import a plugin in another process, and return its description.

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
    # Projects choose the names of their URLs; this is the usual one.
    pages = {name.lower(): url for name, url in urls.items()}
    homepage = (metadata.get_all("Home-page") or [pages.get("homepage", "")])[0]
    summary = (metadata.get_all("Summary") or [""])[0]
    return _PluginInfo(kind, entry, summary, homepage or next(iter(pages.values()), ""), report)


def _document(info: _PluginInfo) -> dict[str, Any]:
    """Return the description as data for JSON."""
    import msgspec

    return {
        "name": info.entry.name,
        "kind": info.kind,
        "version": info.entry.version,
        "distribution": info.entry.distribution,
        "summary": info.summary,
        "homepage": info.homepage,
        "capabilities": info.report.capabilities,
        "keys": msgspec.to_builtins(info.report.keys),
        "example": info.report.example,
    }


def _lines(info: _PluginInfo, width: int) -> list[str]:
    """Return the description as lines of text."""
    labelled = {
        "name": info.entry.name,
        "kind": info.kind,
        "version": info.entry.version,
        "distribution": info.entry.distribution,
        "summary": info.summary,
        "homepage": info.homepage,
    }
    if info.kind == "provider":
        labelled["capabilities"] = ", ".join(info.report.capabilities) or "none"
    lines = [f"{label:<{LABEL_WIDTH}}  {text}" for label, text in labelled.items() if text]
    if info.kind == "connector":
        return [*lines, "", "Configured in [runners.autoscaler.connector_config]."]
    lines += [
        "",
        "Keys of [runners.autoscaler.plugin_config]:" if info.report.keys else "No keys.",
    ]
    for key in info.report.keys:
        lines += ["", *_key_lines(key, width)]
    return [*lines, "", "Example:", "", *_example(info.entry.name, info.report.example)]


def _key_lines(key: Key, width: int) -> Sequence[str]:
    text = f"  {key.name}: {key.type}"
    if key.required:
        text += "; required"
    elif key.default is not None:
        text += f"; default {_toml(key.default)}"
    indent = " " * 6
    return [text, *textwrap.wrap(key.text, width, initial_indent=indent, subsequent_indent=indent)]


def _example(name: str, table: dict[str, Any]) -> list[str]:
    """Return the lines of a `config.toml` with only the required keys."""
    lines = ["[runners.autoscaler]", f"plugin = {_toml(name)}"]
    lines += ["", "[runners.autoscaler.plugin_config]"] if table else []
    return [*lines, *(f"{_toml_key(key)} = {_toml(value)}" for key, value in table.items())]


def _toml(value: object) -> str:
    """Return a value as TOML, on one line."""
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
