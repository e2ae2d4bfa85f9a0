"""Checks requests and answers against botocore's service models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape
from botocore.parsers import create_parser
from botocore.validate import ParamValidator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("answer_problems", "request_problems")


def request_problems(operation: OperationModel, parameters: dict[str, Any]) -> list[str]:
    """Return the problems of a request."""
    if operation.input_shape is None:
        return [f"{operation.name} takes no parameters"] if parameters else []
    problems = _problems(operation.input_shape, parameters)
    return [f"request {operation.name}: {problem}" for problem in problems]


def answer_problems(
    operation: OperationModel,
    answer: Mapping[str, Any],
    body: bytes,
    strangers: frozenset[str] = frozenset(),
) -> list[str]:
    """Return the problems of an answer, even when botocore parses it differently.

    Args:
        operation: the operation.
        answer: the intended answer.
        body: the bytes that are sent.
        strangers: values outside of their enumerations, on purpose.
    """
    shape = operation.output_shape
    problems = [] if shape is None else _problems(shape, dict(answer), strangers)
    if not problems:
        parser: Any = create_parser(operation.service_model.metadata["protocol"])
        parsed = parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
        parsed.pop("ResponseMetadata", None)
        if parsed != answer:
            problems = [f"botocore reads {parsed!r} instead of {answer!r}"]
    return [f"answer to {operation.name}: {problem}" for problem in problems]


def _problems(
    shape: Shape, value: dict[str, Any], strangers: frozenset[str] = frozenset()
) -> list[str]:
    validator: Any = ParamValidator()
    report = validator.validate(value, shape)
    problems: list[str] = report.generate_report().splitlines() if report.has_errors() else []
    for where, text in _outside_enumerations(shape, value, shape.name):
        if text not in strangers:
            problems.append(f"{where} is {text!r}, which its enumeration does not have")
    return problems


def _outside_enumerations(shape: Shape, value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield the values outside of their enumerations, which botocore itself does not check."""
    if isinstance(shape, StructureShape):
        for name in value.keys() & shape.members.keys():
            yield from _outside_enumerations(shape.members[name], value[name], f"{where}.{name}")
    elif isinstance(shape, ListShape):
        for item in value:
            yield from _outside_enumerations(shape.member, item, f"{where}[]")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _outside_enumerations(shape.key, key, f"{where} key")
            yield from _outside_enumerations(shape.value, item, f"{where}[{key}]")
    elif isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        yield where, value
