"""What a struct says about its fields, and what Python's types say about a value."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from itertools import pairwise
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, cast, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeIs

__all__ = (
    "as_builtin",
    "bare_type",
    "default_value",
    "descriptions",
    "is_struct",
    "is_union",
    "members",
    "summary",
)

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def descriptions(shape: type[msgspec.Struct]) -> dict[str, str]:
    """Return what is written about each field of a struct and of those that it extends.

    That is in the docstring below the field, in the section `Attributes:` of the struct's
    own docstring, or in `msgspec.Meta(description=...)`; the first that there is counts.
    """
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(shape):
        for meta in bare_type(field.type)[1]:
            if meta.description:
                found[field.name] = _one_line(meta.description)
    for base in reversed(shape.__mro__):
        if is_struct(base) and base is not msgspec.Struct:
            lines = _own_docstring(base).partition("Attributes:\n")[2]
            found |= {name: _one_line(text) for name, text in _ATTRIBUTE.findall(lines)}
            found |= _below_fields(base)
    return found


def summary(shape: type) -> str:
    """Return the first line of a struct's own docstring; empty if it has none."""
    return _own_docstring(shape).partition("\n")[0]


def _own_docstring(shape: type) -> str:
    # Not that of msgspec itself, which everybody inherits.
    return inspect.cleandoc(shape.__dict__.get("__doc__") or "")


def _below_fields(shape: type) -> dict[str, str]:
    """Return the strings that stand below the fields of a class, if its source can be had."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(shape)))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    for statement, following in pairwise(cast("ast.ClassDef", tree.body[0]).body):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = _one_line(text)
            case _:
                pass
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


def default_value(field: msgspec.structs.FieldInfo) -> Any:
    """Return what holds without the key; None if nothing does."""
    if field.default_factory is not msgspec.NODEFAULT:
        return cast("Callable[[], Any]", field.default_factory)()
    return None if field.required else field.default


def as_builtin(value: Any) -> Any:
    """Return a value as a file has it; None for a table, which is shown by its own keys."""
    if isinstance(value, msgspec.Struct) or value is msgspec.UNSET:
        return None
    return msgspec.to_builtins(value, str_keys=True, enc_hook=str)


def is_struct(shape: Any) -> TypeIs[type[msgspec.Struct]]:
    """Return whether a type is a struct."""
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)


def is_union(shape: Any) -> bool:
    """Return whether a type is one of several."""
    return get_origin(shape) in {Union, UnionType}


def members(shape: Any) -> list[Any]:
    """Return the types that a value can have, without those that mean that there is none."""
    types = get_args(shape) if is_union(shape) else (shape,)
    return [member for member in types if member not in {NoneType, msgspec.UnsetType}]


def bare_type(shape: Any) -> tuple[Any, list[msgspec.Meta]]:
    """Return a type without its limits, and those."""
    if get_origin(shape) is not Annotated:
        return shape, []
    bare, *extras = get_args(shape)
    return bare, [extra for extra in extras if isinstance(extra, msgspec.Meta)]
