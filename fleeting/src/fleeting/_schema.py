"""The JSON Schema of a configuration, for editors that complete keys and show mistakes.

The only source is the struct into which the configuration is decoded. Its annotations have the
types, limits and descriptions (`msgspec.Meta`), and its fields the defaults.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_origin

import msgspec

from fleeting._annotations import (
    as_builtin,
    bare_type,
    default_value,
    description,
    is_struct,
    is_union,
    summary,
)
from fleeting.types import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("json_schema",)

_DURATION = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|ms|us|\u00b5s|\u03bcs|ns|m|s))+)$"


def json_schema(shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration.

    Args:
        shape: the struct that the configuration is decoded into.
    """
    # msgspec cannot encode the default of a Duration or Path, so it gets a copy of each struct
    # with strings instead.
    schema = msgspec.json.schema(_Copies().of(shape), schema_hook=_unknown_type)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return cast("dict[str, Any]", schema)


class _Copies:
    """Copies of structs with plain JSON types, each made once."""

    def __init__(self) -> None:
        self._known: dict[type, Any] = {}

    def of(self, shape: type[msgspec.Struct]) -> Any:
        if shape in self._known:
            return self._known[shape]
        self._known[shape] = dict[str, Any]  # A struct within itself is any table.
        config = shape.__struct_config__
        infos = msgspec.structs.fields(shape)
        fields = [
            (
                info.name,
                Annotated[self._plain(info.type), _extra(info)],
                _plain_default(info),
            )
            for info in infos
        ]
        self._known[shape] = msgspec.defstruct(
            shape.__name__,
            fields,
            kw_only=True,
            forbid_unknown_fields=config.forbid_unknown_fields,
            array_like=config.array_like,
            tag=config.tag,
            tag_field=config.tag_field,
            rename={info.name: info.encode_name for info in infos},
            namespace={"__doc__": summary(shape)},
        )
        return self._known[shape]

    def _plain(self, shape: Any) -> Any:
        if is_struct(shape):
            return self.of(shape)
        if shape is Duration:
            examples = ["90s", "20m0s", "1h30m"]
            return Annotated[str, msgspec.Meta(pattern=_DURATION, examples=examples)]
        if shape is Path:
            return str
        origin, arguments = get_origin(shape), get_args(shape)
        if not arguments or origin is Literal:
            return shape
        if origin is Annotated:
            bare, metas = bare_type(shape)
            plain = self._plain(bare)
            for meta in metas:
                plain = Annotated[plain, meta]
            return plain
        parts = tuple(part if part is Ellipsis else self._plain(part) for part in arguments)
        return _union(parts) if is_union(shape) else origin[parts]


def _extra(field: msgspec.structs.FieldInfo) -> msgspec.Meta:
    text = description(field)
    # msgspec leaves out the default of a field with a factory.
    has_factory = field.default_factory is not msgspec.NODEFAULT
    extra = {"default": as_builtin(default_value(field))} if has_factory else None
    return msgspec.Meta(description=text or None, extra_json_schema=extra)


def _unknown_type(shape: type) -> dict[str, Any]:
    return {"title": shape.__name__}  # Only the plugin knows the values of its types.


def _union(parts: tuple[Any, ...]) -> Any:
    # TOML has no null: a key that may be None may be left out.
    present = [msgspec.UnsetType if part is NoneType else part for part in parts]
    union = present[0]
    for part in present[1:]:
        union |= part
    return union


def _plain_default(field: msgspec.structs.FieldInfo) -> Any:
    """Return the default in JSON; that of a table is an empty table."""
    if field.required:
        return msgspec.NODEFAULT
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=cast("Callable[[], Any]", field.default_factory))
    if field.default is None:
        return msgspec.UNSET
    if isinstance(field.default, msgspec.Struct):
        return msgspec.field(default_factory=dict[str, Any])
    return as_builtin(field.default)
