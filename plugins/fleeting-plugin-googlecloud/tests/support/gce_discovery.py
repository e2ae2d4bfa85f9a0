"""Checks requests and answers against Google's published description of Compute Engine.

The description (a "discovery document") comes with google-api-python-client. So the fake
cloud knows the paths, parameters and schemas of the real one, and cannot invent any.
"""

from __future__ import annotations

import importlib
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("Contract", "Method", "contract")

PREFIX = "/compute/v1/"
_PATH_PART = re.compile(r"\{(\w+)\}")
_FORMATS = {
    "uint64": re.compile(r"[0-9]{1,20}"),
    "int64": re.compile(r"-?[0-9]{1,19}"),
    "byte": re.compile(r"[A-Za-z0-9+/_-]*={0,2}"),
    "google-datetime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": list,
    "object": dict,
}


class Method(NamedTuple):
    """One method of the API.

    Attributes:
        name: such as `instanceGroupManagers.get`.
        verb: the HTTP method.
        pattern: of its path.
        parameters: of path and query, by name.
        request: the name of the schema of its body; None if it has no body.
        response: the name of the schema of its answer.
    """

    name: str
    verb: str
    pattern: re.Pattern[str]
    parameters: Mapping[str, Mapping[str, Any]]
    request: str | None
    response: str


class Contract:
    """The description of the API.

    Args:
        document: the discovery document.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._schemas: Mapping[str, Any] = document["schemas"]
        self._methods = list(_methods(document["resources"]))

    def find(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """Return the method of a request and the parameters in its path; None if there is none."""
        for method in self._methods:
            match = method.pattern.fullmatch(path)
            if match is not None and method.verb == verb:
                return method, match.groupdict()
        return None

    def check_query(self, method: Method, query: Mapping[str, str]) -> Iterator[str]:
        """Yield what is wrong with the query of a request."""
        for name, text in query.items():
            described = method.parameters.get(name)
            if described is None or described.get("location") != "query":
                yield f"{method.name}: unknown query parameter {name}"
            else:
                value: object = text
                if described["type"] in {"integer", "boolean"}:
                    value = json.loads(text)
                yield from self._check(described, value, f"{method.name}?{name}")
        for name, described in method.parameters.items():
            needed = described.get("required") and described.get("location") == "query"
            if needed and name not in query:
                yield f"{method.name}: query parameter {name} is missing"

    def check(self, schema: str, value: object, where: str) -> Iterator[str]:
        """Yield what is wrong with a body."""
        yield from self._check({"$ref": schema}, value, where)

    def _check(self, described: Mapping[str, Any], value: object, where: str) -> Iterator[str]:
        if "$ref" in described:
            described = self._schemas[described["$ref"]] | {"type": "object"}
        kind = described["type"]
        if kind == "any":
            return
        wrong_bool = kind == "integer" and isinstance(value, bool)
        if not isinstance(value, _TYPES[kind]) or wrong_bool:
            yield f"{where}: {value!r} is not a {kind}"
        elif kind == "object":
            yield from self._check_object(described, cast("dict[str, object]", value), where)
        elif kind == "array":
            for number, one in enumerate(cast("list[object]", value)):
                yield from self._check(described["items"], one, f"{where}[{number}]")
        elif kind == "string":
            yield from _check_text(described, str(value), where)

    def _check_object(
        self, described: Mapping[str, Any], value: Mapping[str, object], where: str
    ) -> Iterator[str]:
        properties = described.get("properties", {})
        for name, one in value.items():
            inner = properties.get(name) or described.get("additionalProperties")
            if inner is None:
                yield f"{where}: unknown property {name}"
            else:
                yield from self._check(inner, one, f"{where}.{name}")


def _check_text(described: Mapping[str, Any], text: str, where: str) -> Iterator[str]:
    if "enum" in described and text not in described["enum"]:
        yield f"{where}: {text!r} is not one of {described['enum']}"
    pattern = _FORMATS.get(described.get("format", ""))
    if pattern is not None and not pattern.fullmatch(text):
        yield f"{where}: {text!r} is not a {described['format']}"


def _methods(resources: Mapping[str, Any]) -> Iterator[Method]:
    for resource, described in resources.items():
        for verb, one in described.get("methods", {}).items():
            path = _PATH_PART.sub(r"(?P<\1>[^/]+)", one["path"])
            yield Method(
                f"{resource}.{verb}",
                one["httpMethod"],
                re.compile(PREFIX + path),
                one.get("parameters", {}),
                one.get("request", {}).get("$ref"),
                one.get("response", {}).get("$ref", ""),
            )


@cache
def contract() -> Contract:
    """Return the description of Compute Engine v1."""
    client = importlib.import_module("googleapiclient")
    folder = Path(str(client.__file__)).parent / "discovery_cache" / "documents"
    return Contract(json.loads((folder / "compute.v1.json").read_text()))
