"""What both commands read of `config.toml`: the plugin, its settings, the connector's.

TOML is decoded into frozen structs. What is wrong is collected, so that one
run shows everything: each problem is a sentence that names the file, the path
of keys, what is the matter, and the fix.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import EllipsisType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from typing_extensions import override

from fleeting.errors import ConfigError
from fleeting.types import ConnectorSettings, Duration, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = (
    "ConnectorConfig",
    "GroupConfig",
    "Problem",
    "decode",
    "examine",
    "key_path",
    "nearest",
    "parse_assignments",
    "read_toml",
)

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
_WRONG = object()
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_KEY_SHOWN = 100
# To look for what was meant takes long; nobody reads so many of them.
_SUGGESTIONS = 50
# Python's reader takes quadratic time for these, and nobody nests anything so deeply.
_KEY_PARTS = 100
_DEEP_KEY = re.compile(
    rf"""(?<![\w"'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_KEY_PARTS}}}"""
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with something that an operator wrote, or could be better.

    Attributes:
        path: of the keys, such as `policy[1].idle_time`; empty for the whole.
        text: what is the matter and what to do, in one sentence.
        severity: an `ERROR` stops, a `WARNING` does not.
    """

    path: str
    text: str
    severity: Severity = Severity.ERROR

    @override
    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


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
    use_static_credentials: bool | None = None
    keepalive: Duration | None = None
    timeout: Duration | None = None
    use_external_addr: bool | None = None

    def __repr__(self) -> str:
        """Show no password."""
        return f"ConnectorConfig(protocol={self.protocol!r}, username={self.username!r}, ...)"

    def settings(self) -> ConnectorSettings:
        """Return the same as the value that `ConnectInfo.with_settings` takes."""
        written = {name: getattr(self, name) for name in self.__struct_fields__}
        # GitLab writes nothing as zero, too.
        return ConnectorSettings(**{name: value for name, value in written.items() if value})


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
        return _parsed(path.read_bytes().decode())
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


def _parsed(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):
        raise RecursionError  # As Python's reader does of other things that are too deep.
    return tomllib.loads(text)


def decode(data: Mapping[str, Any], shape: type[T], *, where: str) -> T:
    """Turn a table into a struct, or say everything that is wrong with it.

    Args:
        data: the table.
        shape: a `msgspec.Struct`; may contain `Duration` and `Path`.
        where: names the table in messages, such as `jobs.toml` or `--plugin-config`.

    Raises:
        ConfigError: with one problem for each unknown key, missing key and wrong value.
    """
    found, problems = examine(data, shape)
    if found is None or problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in problems))
    return found


def examine(data: Mapping[str, Any], shape: type[T]) -> tuple[T | None, list[Problem]]:
    """Turn what is right of a table into a struct, and say what is wrong with the rest.

    Args:
        data: the table.
        shape: a `msgspec.Struct`; may contain `Duration` and `Path`.

    Returns:
        The struct, in which what was wrong has its default; None if a key without a
        default is wrong or missing. And the problems, in the order of the file.
    """
    try:
        return msgspec.convert(data, shape, dec_hook=_dec_hook), []
    except msgspec.ValidationError:
        problems: list[Problem] = []
        sound = _sound(data, shape, "", problems)
    if sound is not _WRONG:
        try:
            return msgspec.convert(sound, shape, dec_hook=_dec_hook), problems
        except msgspec.ValidationError as error:  # Of a check over several keys.
            problems.append(_reworded(error, "", shape))
    return None, problems


def key_path(key: str, above: str = "") -> str:
    """Return the path of a key, which is quoted and cut short where that is needed.

    Args:
        key: as it stands in its table.
        above: the path of that table; empty for the whole.
    """
    shown = key if _BARE_KEY.fullmatch(key) else json.dumps(key[:_KEY_SHOWN], ensure_ascii=False)
    return f"{above}.{shown}" if above else shown


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, such as `idle_count` for `IdleCount`."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(_snake(word), folded, n=1)
    return folded[close[0]] if close else None


def _snake(word: str) -> str:
    """Return `idle_count` for `IdleCount` and `idle-count`."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word[:_KEY_SHOWN])
    return parts.lower().replace("-", "_")


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


def _sound(value: Any, shape: Any, path: str, problems: list[Problem]) -> Any:
    """Return what is right of a value, or `_WRONG`, and add what is wrong with the rest."""
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        if (struct := _struct(shape)) is not None:
            return _sound_struct(table, struct, path, problems)
        if (item := _item(shape, dict)) is not None:
            parts = {k: _sound(v, item, key_path(k, path), problems) for k, v in table.items()}
            return {key: part for key, part in parts.items() if part is not _WRONG}
    elif isinstance(value, list) and (item := _item(shape, list, tuple)) is not None:
        items = enumerate(cast("list[Any]", value))
        found = [_sound(v, item, f"{path}[{index}]", problems) for index, v in items]
        # So that those behind keep their numbers.
        found = [_stand_in(item) if part is _WRONG else part for part in found]
        return [part for part in found if part is not _WRONG]
    try:
        msgspec.convert(value, shape, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        problems.append(_reworded(error, path, shape))
        return _WRONG
    return cast("Any", value)


@functools.cache
def _fields(shape: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(shape)


def _members(shape: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type that it is."""
    return get_args(shape) if get_origin(shape) in {Union, UnionType} else (shape,)


def _struct(shape: Any) -> type[msgspec.Struct] | None:
    for member in _members(shape):
        if isinstance(member, type) and issubclass(member, msgspec.Struct):
            return member
    return None


def _item(shape: Any, *containers: type) -> Any:
    """Return the type of what is in a container; None if it is none whose items are alike."""
    for member in _members(shape):
        match get_origin(member), get_args(member):
            case container, (item,) | (item, EllipsisType()) if container in containers:
                return item
            case container, (_, item) if container is dict and dict in containers:
                return item
            case _:
                pass
    return None


def _sound_struct(
    table: dict[str, Any], shape: type[msgspec.Struct], path: str, problems: list[Problem]
) -> Any:
    fields = {field.encode_name: field for field in _fields(shape)}
    parts: dict[str, Any] = {}
    for key, value in table.items():
        if key in fields:
            parts[key] = _sound(value, fields[key].type, key_path(key, path), problems)
        elif shape.__struct_config__.forbid_unknown_fields:
            hint = _hint(key, shape) if len(problems) < _SUGGESTIONS else ""
            problems.append(Problem(key_path(key, path), f"unknown key{hint}"))
    missing = [key for key, field in fields.items() if field.required and key not in parts]
    problems += [Problem(path, f"the key {key!r} is missing; add it") for key in missing]
    if any(field.required and parts.get(key) is _WRONG for key, field in fields.items()):
        return _WRONG
    return _WRONG if missing else {k: v for k, v in parts.items() if v is not _WRONG}


def _stand_in(shape: Any) -> Any:
    """Return a table without any key where that is something of the shape."""
    struct = _struct(shape)
    if struct is None or any(field.required for field in _fields(struct)):
        return _WRONG
    return {}


def _reworded(error: msgspec.ValidationError, above: str, shape: Any) -> Problem:
    """Take msgspec's message apart, which names the path of keys last and as `$.a[0].b`."""
    text, separator, below = str(error).rpartition(" - at `$")
    text = text if separator else str(error)
    below = below.rstrip("`") if separator else ""
    text = _TYPES.sub(_in_words, text)
    path = above + below if above else below.removeprefix(".")
    return Problem(path, f"{text[:1].lower()}{text[1:]}{_fix(text, shape)}")


def _fix(text: str, shape: Any) -> str:
    """Return what to do about a message of msgspec's own; ours say it themselves."""
    if isinstance(shape, type) and issubclass(shape, Enum) and text.startswith("Invalid enum"):
        return f"; write {' or '.join(repr(member.value) for member in shape)}"
    if text == "Expected a list, got a table" and _struct(_item(shape, list)) is not None:
        return "; write [[ ]] around its name"
    return "; write such a value" if text.startswith("Expected") else ""


def _in_words(types: re.Match[str]) -> str:
    """Return `str | null` as TOML's words have it, which knows no null."""
    names = [name for name in types[1].split(" | ") if name != "null"]
    return " or ".join(_WORDS.get(name, f"`{name}`") for name in names)


def _hint(key: str, shape: type[msgspec.Struct]) -> str:
    fields = _fields(shape)
    known = [field.encode_name for field in fields]
    close = nearest(key, known)
    if close is None or close.lower() != _snake(key):
        below = [(field.encode_name, _item(field.type, list) or field.type) for field in fields]
        # Exactly this key may stand one table below.
        for table, shape_below in below:
            struct = _struct(shape_below)
            if struct is not None and _snake(key) in struct.__struct_encode_fields__:
                close = f"{table}.{_snake(key)}"
                break
    return f"; did you mean {close!r}?" if close else f"; known keys: {', '.join(sorted(known))}"
