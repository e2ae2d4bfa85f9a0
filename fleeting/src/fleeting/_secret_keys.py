"""Finds the secrets in a configuration: the values of keys that are marked or named as secrets.

A plugin marks a key of its `config_type` with `Meta(extra_json_schema={"writeOnly": True})`, the
word of JSON Schema for a value that is accepted and never shown. With False, a key is not a secret
although its name looks like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

import msgspec

from fleeting._annotations import alternatives, bare_type, is_struct
from fleeting._secrets import credentials_in, is_secret_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("MARK", "secret_values", "texts")

MARK = "writeOnly"


def secret_values(value: object, shape: Any = Any, name: str = "") -> Iterator[str]:
    """Yield the secrets in a value.

    Args:
        value: as it was read from a file; a table, mostly.
        shape: its type, with the marks.
        name: of its key.
    """
    mark = _mark(shape)
    if mark:
        yield from texts(value)
    elif isinstance(value, Mapping):
        for key, one in cast("Mapping[str, object]", value).items():
            yield from secret_values(one, _below(shape, key), str(key))
    elif isinstance(value, list):
        for one in cast("list[object]", value):
            yield from secret_values(one, _below(shape, None), name)
    elif isinstance(value, str):
        if is_secret_name(name) and mark is None:
            yield value
        yield from credentials_in(value)


def texts(value: object) -> Iterator[str]:
    """Yield all texts and numbers in a value."""
    if isinstance(value, Mapping):
        for one in cast("Mapping[object, object]", value).values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in cast("list[object]", value):
            yield from texts(one)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _mark(shape: Any) -> bool | None:
    """Return whether a type is marked as a secret; None if it has no mark."""
    kinds = (shape, *alternatives(shape))
    metas = [meta for kind in kinds for meta in bare_type(kind)[1]]
    marks = [(meta.extra_json_schema or {}).get(MARK) for meta in metas]
    return next((bool(mark) for mark in marks if mark is not None), None)


def _below(shape: Any, key: str | None) -> Any:
    """Return the type of a key of a table, or of the items of a list if the key is None."""
    for kind in (bare_type(one)[0] for one in alternatives(shape)):
        if key is not None and is_struct(kind):
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
            return fields.get(key, Any)
        if get_args(kind) and (get_origin(kind) is dict) is (key is not None):
            return get_args(kind)[1 if key is not None else 0]
    return Any
