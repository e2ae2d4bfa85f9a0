"""The JSON Schema of `config.toml`, for editors that complete keys and show mistakes.

It is made of the structs that the file is decoded into. Each struct is first
copied into one that is plain JSON, with durations and paths as strings, and
with what its docstring and the table of ranges say beside each key.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin

import msgspec

from fleeting.types import Duration
from taskscaler.config.autoscaler import AutoscalerConfig
from taskscaler.config.ranges import LEAST, MOST
from taskscaler.config.runners import FileConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("config_schema",)

_DURATION = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|ms|us|\u00b5s|\u03bcs|ns|m|s))+)$"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole `config.toml`, of the draft 2020-12."""
    schema = msgspec.json.schema(_plain_struct(FileConfig, {}))
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return cast("dict[str, Any]", schema)


def _plain_struct(shape: type[msgspec.Struct], known: dict[type, type]) -> type:
    """Return a copy of a struct that JSON can say.

    Args:
        shape: the struct.
        known: copies that were made before; this one is added.
    """
    if shape in known:
        return known[shape]
    texts = _descriptions(shape)
    fields = [
        (
            field.name,
            Annotated[_plain(field.type, known), _meta(shape, field, texts)],
            _default(field),
        )
        for field in msgspec.structs.fields(shape)
    ]
    known[shape] = msgspec.defstruct(
        shape.__name__,
        fields,
        kw_only=True,
        forbid_unknown_fields=shape.__struct_config__.forbid_unknown_fields,
        namespace={"__doc__": (inspect.getdoc(shape) or "").partition("\n")[0]},
    )
    return known[shape]


def _plain(shape: Any, known: dict[type, type]) -> Any:
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        return _plain_struct(shape, known)
    if shape is Duration:
        return Annotated[str, msgspec.Meta(pattern=_DURATION, examples=["90s", "20m0s", "1h30m"])]
    if shape is Path:
        return str
    arguments = tuple(_plain(part, known) for part in get_args(shape))
    if not arguments:
        return cast("Any", shape)
    origin = get_origin(shape)
    return cast("Any", origin)[arguments] if origin in {dict, list} else _union(arguments)


def _union(members: tuple[Any, ...]) -> Any:
    # There is no null in TOML: what may be None may be left out.
    present = [msgspec.UnsetType if member is NoneType else member for member in members]
    union = present[0]
    for member in present[1:]:
        union |= member
    return union


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """Return the default as JSON says it; a table's is to be without keys."""
    default = field.default
    if default is None:
        return msgspec.UNSET
    if default is msgspec.NODEFAULT:
        return msgspec.field(default_factory=cast("Callable[[], Any]", field.default_factory))
    if isinstance(default, msgspec.Struct):
        return msgspec.field(default_factory=dict[str, Any])
    return str(default) if isinstance(default, Duration | Path) else default


def _meta(shape: type, field: msgspec.structs.FieldInfo, texts: Mapping[str, str]) -> msgspec.Meta:
    extra: dict[str, Any] = {}
    # Elsewhere the same names have other meanings.
    if shape.__module__ == AutoscalerConfig.__module__:
        if field.name in LEAST:
            extra["minimum"] = LEAST[field.name][0]
        if field.name in MOST:
            extra["maximum"] = MOST[field.name]
    # Of a list that is made anew each time, msgspec does not say what is in it.
    if field.default_factory is not msgspec.NODEFAULT:
        extra["default"] = cast("Callable[[], Any]", field.default_factory)()
    return msgspec.Meta(description=texts.get(field.name), extra_json_schema=extra or None)


def _descriptions(shape: type) -> dict[str, str]:
    """Return what the docstrings of a struct and of those it extends say of each key."""
    found: dict[str, str] = {}
    for base in reversed(shape.__mro__):
        text = base.__dict__.get("__doc__") or ""
        lines = inspect.cleandoc(text).partition("Attributes:\n")[2]
        found |= {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(lines)}
    return found
