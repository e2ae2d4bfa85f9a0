"""The keys of a configuration with their types in TOML, as `fleeting info` shows them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_origin

import msgspec

from fleeting._annotations import (
    alternatives,
    as_builtin,
    bare_type,
    default_value,
    description,
    is_struct,
    members,
)
from fleeting.types import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("Key", "example", "list_keys")

# The names of types in TOML.
_WORDS: Mapping[Any, str] = {
    Any: "anything",
    Duration: "duration",
    Path: "path",
    bool: "boolean",
    dict: "table",
    float: "number",
    frozenset: "list",
    int: "integer",
    list: "list",
    set: "list",
    str: "string",
    tuple: "list",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_LISTS = {list, tuple, set, frozenset}
# Example values of required keys.
_EXAMPLES: Mapping[Any, Any] = {Duration: "1m", Path: "/path/to/file", bool: False, dict: {}}


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key of a configuration.

    Attributes:
        name: the path of the key, such as `disk.size`, or `disks[].size` for a key in each
            table of a list.
        type: a type of TOML, such as `integer` or `list of string`.
        required: whether its table must have the key.
        default: the value if the key is missing, as in a file; None if there is none.
        text: the description; may be empty.
    """

    name: str
    type: str
    required: bool = False
    default: Any = None
    text: str = ""


def list_keys(shape: type[msgspec.Struct]) -> list[Key]:
    """Return the keys of a struct and of the tables in it, in the order of the fields."""
    return list(_keys(shape, "", ()))


def _keys(shape: type[msgspec.Struct], above: str, outer: tuple[type, ...]) -> Iterator[Key]:
    for field in msgspec.structs.fields(shape):
        name = above + field.encode_name
        yield Key(
            name=name,
            type=_type_words(field.type),
            required=field.required,
            default=as_builtin(default_value(field)),
            text=description(field),
        )
        below, marks = _table_below(field.type)
        # A table that can contain itself is listed once.
        if below is not None and below not in {*outer, shape}:
            yield from _keys(below, f"{name}{marks}.", (*outer, shape))


def _table_below(shape: Any) -> tuple[type[msgspec.Struct] | None, str]:
    """Return the struct of a table or of the tables of a list, and the marks of the list."""
    for bare in members(shape):
        if is_struct(bare):
            return bare, ""
        if get_origin(bare) in _LISTS:
            below, marks = _table_below(get_args(bare)[0])
            return below, f"[]{marks}"
    return None, ""


def _type_words(shape: Any) -> str:
    bare, metas = bare_type(shape)
    words = " or ".join(dict.fromkeys(_member_words(member) for member in alternatives(bare)))
    limits = [
        f"{word} {limit:g}"
        for meta in metas
        for bound, word in _BOUNDS.items()
        if (limit := getattr(meta, bound)) is not None
    ]
    patterns = [f"matching {meta.pattern}" for meta in metas if meta.pattern is not None]
    return ", ".join([words, *limits, *patterns])


def _member_words(shape: Any) -> str:
    origin, arguments = get_origin(shape), get_args(shape)
    if origin is Annotated:
        words = _type_words(shape)
    elif choices := _choices(shape):
        words = " or ".join(f'"{one}"' if isinstance(one, str) else str(one) for one in choices)
    elif origin in _LISTS:
        words = f"list of {_type_words(arguments[0])}"
    elif origin is dict and arguments[1] is not Any:
        words = f"table of {_type_words(arguments[1])}"
    elif origin is dict or is_struct(shape):
        words = "table"
    else:
        words = _WORDS.get(shape) or str(getattr(shape, "__name__", shape))
    return words


def _choices(shape: Any) -> list[Any]:
    """Return the values of a type that lists them."""
    if get_origin(shape) is Literal:
        return list(get_args(shape))
    is_enum = isinstance(shape, type) and issubclass(shape, Enum)
    return [member.value for member in cast("type[Enum]", shape)] if is_enum else []


def example(shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Return a table with a valid value for each required key."""
    required = [field for field in msgspec.structs.fields(shape) if field.required]
    return {field.encode_name: _example_value(field.type) for field in required}


def _example_value(shape: Any) -> Any:
    bare, metas = bare_type(shape)
    bare, more = bare_type(alternatives(bare)[0])
    kind = get_origin(bare) or bare
    if is_struct(bare):
        return example(bare)
    if choices := _choices(bare):
        return choices[0]
    if kind in _LISTS:
        item = get_args(bare)[:1]
        return [_example_value(item[0])] if item else []
    if kind in {int, float}:
        least = [meta.ge for meta in (*metas, *more) if meta.ge is not None]
        least += [meta.gt + 1 for meta in (*metas, *more) if meta.gt is not None]
        return max(least, default=1)
    return _EXAMPLES.get(kind, "...")
