"""One interface to a group of instances, and to each instance in it.

What a plugin's author needs is in `fleeting.abc`, `types`, `errors`, `plugin` and `testing`.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleeting._bugs import describe_bug, quote_bug
    from fleeting._config import (
        ConnectorConfig,
        GroupConfig,
        GroupConfigEntry,
        GroupEntryConfig,
    )
    from fleeting._deadlines import CancelledInside, DeadlineExceeded, call_within, is_readable
    from fleeting._decoding import (
        Problem,
        decode,
        examine,
        key_path,
        nearest,
        parse_assignments,
        read_toml,
        snake_case,
        template_in,
    )
    from fleeting._gitlab_reading import as_gitlab_reads, decode_settings, examine_settings
    from fleeting._lock import driving, locked_file, read_holder
    from fleeting._plugin_import import open_settings, use_provider
    from fleeting._program import exit_at_once, run_program
    from fleeting._references import parse_reference
    from fleeting._registry import Registry
    from fleeting._regular_files import open_regular, read_regular
    from fleeting._schema import json_schema
    from fleeting._secrets import remember_passing
    from fleeting._text import (
        foreign,
        guard_logs,
        is_terminal,
        output_descriptor,
        plain,
        say,
        say_json,
        show,
        wrapped,
    )
    from fleeting.abc import Connection
    from fleeting.types import ConnectInfo

__all__ = (
    "CancelledInside",
    "ConnectorConfig",
    "DeadlineExceeded",
    "GroupConfig",
    "GroupConfigEntry",
    "GroupEntryConfig",
    "Problem",
    "Registry",
    "__version__",
    "as_gitlab_reads",
    "call_within",
    "connect",
    "decode",
    "decode_settings",
    "describe_bug",
    "driving",
    "examine",
    "examine_settings",
    "exit_at_once",
    "foreign",
    "guard_logs",
    "is_readable",
    "is_terminal",
    "json_schema",
    "key_path",
    "locked_file",
    "nearest",
    "open_regular",
    "open_settings",
    "output_descriptor",
    "parse_assignments",
    "parse_reference",
    "plain",
    "quote_bug",
    "read_holder",
    "read_regular",
    "read_toml",
    "remember_passing",
    "run_program",
    "say",
    "say_json",
    "show",
    "snake_case",
    "template_in",
    "use_provider",
    "wrapped",
)

__version__ = "1.0.0"

_HOMES = {
    "_bugs": ("describe_bug", "quote_bug"),
    "_config": ("ConnectorConfig", "GroupConfig", "GroupConfigEntry", "GroupEntryConfig"),
    "_decoding": (
        "Problem",
        "decode",
        "examine",
        "key_path",
        "nearest",
        "parse_assignments",
        "read_toml",
        "snake_case",
        "template_in",
    ),
    "_gitlab_reading": ("as_gitlab_reads", "decode_settings", "examine_settings"),
    "_deadlines": ("CancelledInside", "DeadlineExceeded", "call_within", "is_readable"),
    "_lock": ("driving", "locked_file", "read_holder"),
    "_plugin_import": ("open_settings", "use_provider"),
    "_program": ("exit_at_once", "run_program"),
    "_references": ("parse_reference",),
    "_registry": ("Registry",),
    "_regular_files": ("open_regular", "read_regular"),
    "_schema": ("json_schema",),
    "_secrets": ("remember_passing",),
    "_text": (
        "foreign",
        "guard_logs",
        "is_terminal",
        "output_descriptor",
        "plain",
        "say",
        "say_json",
        "show",
        "wrapped",
    ),
}


async def connect(info: ConnectInfo) -> Connection:
    """Connect to an instance by its protocol.

    Args:
        info: from `InstanceGroup.connect_info`, with the operator's settings merged in.

    Returns:
        A connection, which is also an async context manager that closes itself.

    Raises:
        PluginError: there is no usable connector for the protocol.
        ConnectorError: the connection did not come about; see `Connector.connect`.
    """
    return await _default_registry().connector(info.protocol).connect(info)


@functools.cache
def _default_registry() -> Registry:
    """Return the registry that all connections share, so that plugins are found once.

    Not named `_registry`: importing the submodule of that name would replace the function.
    """
    # Imported late so that asking for the version costs nothing.
    from fleeting._registry import Registry

    return Registry()


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `fleeting --version` must not pay for it."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"fleeting.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
