"""What both commands read of `config.toml`: the plugin, its settings, the connector's.

TOML is decoded into frozen structs. What is wrong is collected, so that one
run shows everything: each problem is a sentence that names the file, the path
of keys, what is the matter, and the fix.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from fleeting.errors import ConfigError
from fleeting.types import ConnectorSettings, Duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ("ConnectorConfig", "GroupConfig", "decode", "parse_assignments", "read_toml")

T = TypeVar("T")

# The types of msgspec's messages, by the names that they have in TOML.
_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "a table",
    "str": "a string",
}
_TYPES = re.compile(r"`(\w+(?: \| \w+)*)`")
_MISSING = re.compile(r"Object missing required field `(.+?)`")


class ConnectorConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[connector_config]`: how to reach the instances, where the operator knows better.

    Attributes:
        os: the operating system of the instances.
        arch: their processor architecture, such as `amd64`.
        protocol: the connector's name, such as `ssh`.
        protocol_port: the port; the protocol's own by default.
        username: whom to log in as.
        password: with which password.
        key_path: with which private key; a file.
        use_static_credentials: provision no credentials for each instance.
        keepalive: how often an idle connection is tested.
        timeout: the total time for one connection to come about.
        use_external_addr: prefer the external address.
    """

    os: str | None = None
    arch: str | None = None
    protocol: str | None = None
    protocol_port: int | None = None
    username: str | None = None
    password: str | None = None
    key_path: Path | None = None
    use_static_credentials: bool = False
    keepalive: Duration | None = None
    timeout: Duration | None = None
    use_external_addr: bool = False

    def __repr__(self) -> str:
        """Show no password."""
        return f"ConnectorConfig(protocol={self.protocol!r}, username={self.username!r}, ...)"

    def settings(self) -> ConnectorSettings:
        """Return the same as the value that `ConnectInfo.with_settings` takes."""
        return ConnectorSettings(**{name: getattr(self, name) for name in self.__struct_fields__})


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which group, and how to reach its instances: a part of `[runners.autoscaler]`.

    Attributes:
        plugin: the name of an installed plugin.
        plugin_config: handed to the plugin, which alone knows its keys.
        connector_config: how to reach the instances.
    """

    plugin: str = ""
    plugin_config: dict[str, Any] = {}
    connector_config: ConnectorConfig = ConnectorConfig()

    def __repr__(self) -> str:
        """Show no setting of the plugin: which of them are secrets, the plugin alone knows."""
        return f"GroupConfig(plugin={self.plugin!r}, {self.connector_config!r}, ...)"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it is missing, unreadable, not UTF-8 or not TOML; with line and column.
    """
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: it cannot be read ({reason}); check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: this is not TOML: {error}; mend the line it names") from None
    except RecursionError:
        raise ConfigError(f"{path}: tables or lists are nested too deeply; flatten them") from None
    except ValueError:  # Of Python itself, which reads no number of thousands of digits.
        raise ConfigError(f"{path}: a number in it is too long; write a smaller one") from None


def decode(data: Mapping[str, Any], shape: type[T], *, where: str) -> T:
    """Turn a table into a struct, or say everything that is wrong with it.

    Args:
        data: the table.
        shape: a `msgspec.Struct`; may contain `Duration` and `Path`.
        where: names the table in messages, such as `jobs.toml` or `--plugin-config`.

    Raises:
        ConfigError: with one problem for each unknown key, or for the first wrong value.
    """
    problems = [f"{where}: {problem}" for problem in _unknown_keys(data, shape, "")]
    if problems:
        raise ConfigError(*problems)
    try:
        return msgspec.convert(data, shape, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_reworded(error)}") from None


def parse_assignments(pairs: Sequence[str], *, where: str) -> dict[str, Any]:
    """Read `KEY=VALUE` words as they stand on a command line.

    A value is read as TOML where it is TOML (`3`, `true`, `"text"`, `[1, 2]`), and
    is a plain string otherwise. A dot in a key leads into a table.

    Raises:
        ConfigError: a word has no `=`, or a key is both a value and a table.
    """
    table: dict[str, Any] = {}
    for number, pair in enumerate(pairs, 1):
        key, equals, text = pair.partition("=")
        if not equals or not key:
            # The word itself may be a secret.
            raise ConfigError(
                f"{where}: value number {number} is not KEY=VALUE; write for instance max_size=4"
            )
        *above, last = key.split(".")
        place: Any = table
        for part in above:
            if isinstance(place, dict):
                place = cast("dict[str, Any]", place).setdefault(part, {})
        found = cast("dict[str, Any]", place) if isinstance(place, dict) else None
        if found is None or isinstance(found.get(last), dict):
            raise ConfigError(f"{where}: {key!r} is given both a value and keys below it; drop one")
        found[last] = _value(text)
    return table


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _dec_hook(shape: type[Any], value: Any) -> Any:
    if issubclass(shape, Duration):
        if not isinstance(value, str):
            raise ValueError(f'{value!r} is no duration: write for instance "90s" or "20m"')
        return shape.parse(value)
    if issubclass(shape, Path):
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no path: write it in quotes")
        if not value or "\0" in value:
            raise ValueError(f'{value!r} is no path: write for instance "/tmp/here"')
        return shape(value)
    raise NotImplementedError(f"no way to read a {shape.__name__}")


def _reworded(error: msgspec.ValidationError) -> str:
    """Put the path of keys, which msgspec names last and as `$.a[0].b`, in front."""
    text, separator, path = str(error).rpartition(" - at `$")
    text = text if separator else str(error)
    if missing := _MISSING.match(text):
        text = f"The key {missing[1]!r} is missing; add it"
    text = _TYPES.sub(_in_words, text)
    if not separator:
        return f"{text[:1].lower()}{text[1:]}{_fix(text)}"
    place = path.rstrip("`").removeprefix(".") or "the table"
    return f"{place}: {text[:1].lower()}{text[1:]}{_fix(text)}"


def _fix(text: str) -> str:
    """Return what to do about a message of msgspec's own; ours say it themselves."""
    if text.startswith("Expected"):
        return "; write such a value"
    return ""


def _in_words(types: re.Match[str]) -> str:
    """Return `str | null` as TOML's words have it, which knows no null."""
    names = [name for name in types[1].split(" | ") if name != "null"]
    return " or ".join(_WORDS.get(name, f"`{name}`") for name in names)


def _unknown_keys(data: Any, shape: Any, path: str) -> Iterator[str]:
    """Find the keys that no struct has, at every depth, each with the nearest that exists."""
    info = shape if isinstance(shape, msgspec.inspect.Type) else msgspec.inspect.type_info(shape)
    if isinstance(info, msgspec.inspect.StructType) and isinstance(data, dict):
        fields = {field.encode_name: field for field in info.fields}
        for key, value in cast("dict[str, Any]", data).items():
            if key in fields:
                yield from _unknown_keys(value, fields[key].type, f"{path}{key}.")
            elif info.forbid_unknown_fields:
                yield f"{path}{key}: unknown key{_nearest(key, list(fields))}"
    elif isinstance(info, msgspec.inspect.CollectionType) and isinstance(data, list):
        for index, value in enumerate(cast("list[Any]", data)):
            yield from _unknown_keys(value, info.item_type, f"{path.rstrip('.')}[{index}].")
    elif isinstance(info, msgspec.inspect.UnionType):
        for member in info.types:
            if isinstance(member, msgspec.inspect.StructType | msgspec.inspect.CollectionType):
                yield from _unknown_keys(data, member, path)


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(sorted(known))}"
