"""The JSON Schema of a configuration, for editors that complete keys and show mistakes.

All is taken from the struct that the configuration is decoded into: the types and limits
from its annotations, the defaults from its fields, and what each key means from the
docstring below the field, from the section `Attributes:` of the struct's own docstring,
or from `msgspec.Meta(description=...)`.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_origin

import msgspec

from fleeting._fields import (
    as_builtin,
    bare_type,
    default_value,
    descriptions,
    is_struct,
    is_union,
    summary,
)
from fleeting.types import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    _Limits: TypeAlias = Callable[[type[msgspec.Struct], msgspec.structs.FieldInfo], dict[str, Any]]

__all__ = ("json_schema",)

_DURATION = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(h|ms|us|\u00b5s|\u03bcs|ns|m|s))+)$"


def json_schema(shape: type[msgspec.Struct], limits: _Limits | None = None) -> dict[str, Any]:
    """Return the JSON Schema, of the draft 2020-12, of what is decoded into a struct.

    Each struct is first copied into one that is plain JSON, with durations and paths as
    strings, and with what is written about each key beside it.

    Args:
        shape: the struct.
        limits: returns what else the schema is to say of a field of a struct, such as
            `{"minimum": 1}`, where its type does not say it.
    """
    schema = msgspec.json.schema(_Copies(limits).of(shape), schema_hook=_unknown_type)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return cast("dict[str, Any]", schema)


class _Copies:
    """Copies of structs that JSON can say, each made once."""

    def __init__(self, limits: _Limits | None) -> None:
        self._limits = limits
        self._known: dict[type, Any] = {}

    def of(self, shape: type[msgspec.Struct]) -> Any:
        if shape in self._known:
            return self._known[shape]
        self._known[shape] = dict[str, Any]  # Where it is within itself; a copy cannot be.
        texts = descriptions(shape)
        config = shape.__struct_config__
        infos = msgspec.structs.fields(shape)
        fields = [
            (
                info.name,
                Annotated[self._plain(info.type), self._meta(shape, info, texts)],
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

    def _meta(
        self, shape: type[msgspec.Struct], field: msgspec.structs.FieldInfo, texts: dict[str, str]
    ) -> msgspec.Meta:
        extra = self._limits(shape, field) if self._limits else {}
        # Of a list that is made anew each time, msgspec does not say what is in it.
        if field.default_factory is not msgspec.NODEFAULT:
            extra["default"] = as_builtin(default_value(field))
        return msgspec.Meta(description=texts.get(field.name), extra_json_schema=extra or None)


def _unknown_type(shape: type) -> dict[str, Any]:
    return {"title": shape.__name__}  # What it can be, only its plugin knows.


def _union(parts: tuple[Any, ...]) -> Any:
    # There is no null in TOML: what may be None may be left out.
    present = [msgspec.UnsetType if part is NoneType else part for part in parts]
    union = present[0]
    for part in present[1:]:
        union |= part
    return union


def _plain_default(field: msgspec.structs.FieldInfo) -> Any:
    """Return the default as JSON says it; a table's is to be without keys."""
    if field.required:
        return msgspec.NODEFAULT
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=cast("Callable[[], Any]", field.default_factory))
    if field.default is None:
        return msgspec.UNSET
    if isinstance(field.default, msgspec.Struct):
        return msgspec.field(default_factory=dict[str, Any])
    return as_builtin(field.default)
