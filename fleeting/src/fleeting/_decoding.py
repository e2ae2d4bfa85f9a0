"""Decoding TOML into frozen structs, with every problem reported at once.

Each problem is one sentence that names the path of keys, the mistake and the fix.
"""

from __future__ import annotations

import codecs
import difflib
import functools
import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin

import msgspec
import tomli
from typing_extensions import override

from fleeting._annotations import is_struct, members
from fleeting._regular_files import read_given
from fleeting._secret_keys import secret_values
from fleeting._secrets import remember_secrets
from fleeting.errors import ConfigError
from fleeting.types import Duration, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = (
    "Problem",
    "decode",
    "examine",
    "key_path",
    "nearest",
    "parse_assignments",
    "read_toml",
    "snake_case",
    "template_in",
)

T = TypeVar("T")

# The types in msgspec's messages, by their names in TOML.
_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "a table",
    "str": "a string",
}
_WRONG_TYPE = re.compile(r"Expected `([\w |]+)`, got `(\w+)`")
_BOUND = re.compile(r"Expected `\w+(?: \| null)?` (>=|>|<=|<) (-?[\d.]+)")
_PATTERN = re.compile(r"Expected `str(?: \| null)?` matching regex '(.*)'", re.DOTALL)
_BOUND_WORDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
_KINDS: Mapping[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "table",
    list: "list",
}
_WRONG = object()
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_KEY_SHOWN = 100
# The marks of Jinja, Go and Helm; of shells and Terraform; of Terraform; of ERB.
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\$\{[^}]*\}|%\{[^}]*\}|<%.*?%>", re.DOTALL)
# Searching for a similar key takes long, and no reader needs more hints than this.
_SUGGESTIONS = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a file or option, or something that could be better.

    Attributes:
        path: the path of the key, such as `policy[1].idle_time`; empty for the whole file.
        text: the mistake and the fix, in one sentence.
        severity: an `ERROR` stops the command, a `WARNING` does not.
    """

    path: str
    text: str
    severity: Severity = Severity.ERROR

    @override
    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8 or not TOML; the message
            gives line and column.
    """
    text = ""
    try:
        text = _decoded(read_given(path))
        return tomli.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: the file does not exist; check the path") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"{path}: the file cannot be read ({reason}); check the path and its permissions"
        ) from None
    except UnicodeDecodeError as error:
        found = (
            "the file is UTF-16"
            if error.encoding == "utf-16"
            else f"byte {error.start} is not UTF-8"
        )
        raise ConfigError(f"{path}: {found}; save the file as UTF-8") from None
    except tomli.TOMLDecodeError as error:
        line = "".join(text.split("\n")[error.lineno - 1 : error.lineno])
        fix = f"{template_in(line)}; render the file first" if template_in(line) else ""
        raise ConfigError(
            f"{path}: the file is not valid TOML: {error}; {fix or 'correct that line'}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: tables or lists are nested too deeply; flatten them") from None
    except ValueError:  # Python itself refuses numbers of thousands of digits.
        raise ConfigError(
            f"{path}: the file contains a number that is too long; write a smaller one"
        ) from None


def _decoded(content: bytes) -> str:
    """Return the text of a file. Windows' editors begin a file with a byte order mark."""
    # A text in UTF-16 has a zero byte in each ASCII character, and TOML has none at all.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:4]:
        raise UnicodeDecodeError("utf-16", content, 0, 2, "not UTF-8")
    return content.decode("utf-8-sig")


def template_in(text: str) -> str:
    """Return words about a template such as `{{ name }}` or `${name}` in a text, or nothing."""
    found = _TEMPLATE.search(text)
    return f"it contains the template {found[0][:_KEY_SHOWN]}" if found else ""


def decode(data: Mapping[str, Any], shape: type[T], *, where: str) -> T:
    """Decode a table into a struct, or report every mistake in it.

    Args:
        data: the table.
        shape: a `msgspec.Struct`; may contain `Duration` and `Path`.
        where: names the table in messages, such as `jobs.toml` or `--plugin-config`.

    Raises:
        ConfigError: with one sentence for each unknown key, missing key and wrong value.
    """
    found, problems = examine(data, shape)
    if found is None or problems:
        raise ConfigError(*(f"{where}: {problem}" for problem in problems))
    return found


def examine(data: Mapping[str, Any], shape: type[T]) -> tuple[T | None, list[Problem]]:
    """Decode the valid part of a table into a struct, and report the mistakes in the rest.

    Args:
        data: the table.
        shape: a `msgspec.Struct`; may contain `Duration` and `Path`.

    Returns:
        The struct, with the default for each wrong value; None if a key without a default
        is wrong or missing. And the problems, in the order of the file.
    """
    # Before the first message about it.
    remember_secrets(secret_values(data, shape))
    try:
        return msgspec.convert(data, shape, dec_hook=_dec_hook), []
    except msgspec.ValidationError:
        problems: list[Problem] = []
        sound = _sound(data, shape, "", problems)
    if sound is not _WRONG:
        try:
            return msgspec.convert(sound, shape, dec_hook=_dec_hook), problems
        except msgspec.ValidationError as error:  # A check over several keys failed.
            problems.append(_reworded(error, "", shape))
    return None, problems


def key_path(key: str, above: str = "") -> str:
    """Return the path of a key, quoted and shortened where necessary.

    Args:
        key: the key as the file has it.
        above: the path of its table; empty for the top level.
    """
    shown = key if _BARE_KEY.fullmatch(key) else json.dumps(key[:_KEY_SHOWN], ensure_ascii=False)
    return f"{above}.{shown}" if above else shown


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the most similar known word, such as `idle_count` for `IdleCount`, if there is one."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(snake_case(word), folded, n=1)
    return folded[close[0]] if close else None


def snake_case(word: str) -> str:
    """Return `idle_count` for `IdleCount` and `idle-count`."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word[:_KEY_SHOWN])
    return parts.lower().replace("-", "_")


def parse_assignments(pairs: Sequence[str], *, where: str) -> dict[str, Any]:
    """Read `KEY=VALUE` arguments of a command line into a table.

    A value that is valid TOML (`3`, `true`, `"text"`, `[1, 2]`) is read as TOML; any other
    value is a string. A dot in a key leads into a table.

    Raises:
        ConfigError: an argument has no `=`, or a key is both a value and a table.
    """
    table: dict[str, Any] = {}
    for number, pair in enumerate(pairs, 1):
        key, equals, text = pair.partition("=")
        if not equals or not key:
            # The argument itself may be a secret, so the message shows its number only.
            which = f" number {number}" if len(pairs) > 1 else ""
            raise ConfigError(
                f"{where}{which} is not KEY=VALUE; write for example {where} max_size=4"
            )
        *above, last = key.split(".")
        place: Any = table
        for part in above:
            if isinstance(place, dict):
                place = cast("dict[str, Any]", place).setdefault(part, {})
        found = cast("dict[str, Any]", place) if isinstance(place, dict) else None
        if found is None or isinstance(found.get(last), dict):
            raise ConfigError(
                f"{where}: {key!r} has both a value and keys below it; remove one of them"
            )
        found[last] = _value(text)
    return table


def _value(text: str) -> Any:
    try:
        table = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _dec_hook(shape: type[Any], value: Any) -> Any:
    if issubclass(shape, Duration):
        if not isinstance(value, str):
            raise ValueError(f'expected a duration such as "90s" or "20m", got {_shown(value)}')
        return shape.parse(value)
    if issubclass(shape, Path):
        if not isinstance(value, str):
            raise ValueError(f"expected a path in quotes, got {_shown(value)}")
        if not value or "\0" in value:
            raise ValueError(f'expected a path such as "/tmp/here", got {_shown(value)}')
        return shape(value)
    raise NotImplementedError(f"no decoder for {shape.__name__}")


def _sound(value: Any, shape: Any, path: str, problems: list[Problem]) -> Any:
    """Return the valid part of a value, or `_WRONG`, and add the problems of the rest."""
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
        # Stand-ins keep the numbers of the items after a wrong one.
        found = [_stand_in(item) if part is _WRONG else part for part in found]
        return [part for part in found if part is not _WRONG]
    try:
        msgspec.convert(value, shape, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        problems.append(_reworded(error, path, shape, value))
        return _WRONG
    return cast("Any", value)


@functools.cache
def _fields(shape: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(shape)


def _struct(shape: Any) -> type[msgspec.Struct] | None:
    return next((member for member in members(shape) if is_struct(member)), None)


def _item(shape: Any, *containers: type) -> Any:
    """Return the type of the items of a container; None if they do not have one type."""
    for member in members(shape):
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
    """Return an empty table if the shape allows one."""
    struct = _struct(shape)
    if struct is None or any(field.required for field in _fields(struct)):
        return _WRONG
    return {}


def _reworded(
    error: msgspec.ValidationError, above: str, shape: Any, value: Any = _WRONG
) -> Problem:
    """Reword a message of msgspec, which ends with the path of the key as `$.a[0].b`."""
    text, separator, below = str(error).rpartition(" - at `$")
    text = text if separator else str(error)
    below = below.rstrip("`") if separator else ""
    if bound := _BOUND.fullmatch(text):
        text = f"must be {_BOUND_WORDS[bound[1]]} {bound[2].removesuffix('.0')}"
        text += "" if value is _WRONG else f", got {value}"
    elif pattern := _PATTERN.fullmatch(text):
        text = f"does not have the form {pattern[1]}"
    elif text.startswith("Invalid enum"):
        text = f"expected {_choices(shape)}" + ("" if value is _WRONG else f", got {_shown(value)}")
    elif wrong := _WRONG_TYPE.fullmatch(text):
        expected = _in_words(wrong[1])
        # A value of the wrong type may be a secret where a string is expected.
        got = _in_words(wrong[2]) if value is _WRONG or "string" in expected else _shown(value)
        text = f"expected {expected}, got {got}"
        if wrong[1] == "array" and wrong[2] == "object" and _struct(_item(shape, list)) is not None:
            text += "; write [[ ]] around its name"
    path = above + below if above else below.removeprefix(".")
    return Problem(path, f"{text[:1].lower()}{text[1:]}")


def _choices(shape: Any) -> str:
    enums = [one for one in members(shape) if isinstance(one, type) and issubclass(one, Enum)]
    return " or ".join(f'"{member.value}"' for enum in enums for member in enum)


def _in_words(types: str) -> str:
    """Return `str | null` as "a string": TOML has no null."""
    names = [name for name in types.split(" | ") if name != "null"]
    return " or ".join(_WORDS.get(name, f"`{name}`") for name in names)


def _shown(value: Any) -> str:
    """Return a value with its type, such as `the string "ten"`, shortened."""
    kind = _KINDS.get(value.__class__, "value")
    if isinstance(value, dict | list):
        return f"a {kind}"
    shown = json.dumps(value, ensure_ascii=False, default=str)[:_KEY_SHOWN]
    return shown if isinstance(value, bool) else f"the {kind} {shown}"


def _hint(key: str, shape: type[msgspec.Struct]) -> str:
    fields = _fields(shape)
    known = [field.encode_name for field in fields]
    close = nearest(key, known)
    if close is None or close.lower() != snake_case(key):
        below = [(field.encode_name, _item(field.type, list) or field.type) for field in fields]
        # A table below may have exactly this key.
        for table, shape_below in below:
            struct = _struct(shape_below)
            if struct is not None and snake_case(key) in struct.__struct_encode_fields__:
                close = f"{table}.{snake_case(key)}"
                break
    return f"; did you mean {close!r}?" if close else f"; known keys: {', '.join(sorted(known))}"
