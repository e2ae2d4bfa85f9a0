"""The types, descriptions and defaults of the fields of a struct, from their annotations."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, cast, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeIs

__all__ = (
    "alternatives",
    "as_builtin",
    "bare_type",
    "default_value",
    "description",
    "is_struct",
    "is_union",
    "members",
    "summary",
)


def description(field: msgspec.structs.FieldInfo) -> str:
    """Return the text of `msgspec.Meta(description=...)`; empty if there is none."""
    texts = [meta.description for meta in bare_type(field.type)[1] if meta.description]
    return " ".join(texts[-1].split()) if texts else ""


def summary(shape: type) -> str:
    """Return the first line of a struct's own docstring; empty if it has none."""
    # `__dict__`, because every struct inherits the docstring of `msgspec.Struct`.
    return inspect.cleandoc(shape.__dict__.get("__doc__") or "").partition("\n")[0]


def default_value(field: msgspec.structs.FieldInfo) -> Any:
    """Return the value of a missing key; None if the key is required."""
    if field.default_factory is not msgspec.NODEFAULT:
        return cast("Callable[[], Any]", field.default_factory)()
    return None if field.required else field.default


def as_builtin(value: Any) -> Any:
    """Return a value as in a file; None for a table, because its keys have the defaults."""
    if isinstance(value, msgspec.Struct) or value is msgspec.UNSET:
        return None
    return msgspec.to_builtins(value, str_keys=True, enc_hook=str)


def is_struct(shape: Any) -> TypeIs[type[msgspec.Struct]]:
    """Return whether a type is a struct."""
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)


def is_union(shape: Any) -> bool:
    """Return whether a type is a union."""
    return get_origin(shape) in {Union, UnionType}


def members(shape: Any) -> list[Any]:
    """Return the possible types of a value, without annotations and without None."""
    return [bare_type(one)[0] for one in alternatives(shape)]


def alternatives(shape: Any) -> list[Any]:
    """Return the possible types of a value with their annotations, without None."""
    bare = bare_type(shape)[0]
    types = get_args(bare) if is_union(bare) else (bare,)
    return [one for one in types if one not in {NoneType, msgspec.UnsetType}]


def bare_type(shape: Any) -> tuple[Any, list[msgspec.Meta]]:
    """Return a type without its annotations, and the annotations."""
    if get_origin(shape) is not Annotated:
        return shape, []
    bare, *extras = get_args(shape)
    return bare, [extra for extra in extras if isinstance(extra, msgspec.Meta)]
