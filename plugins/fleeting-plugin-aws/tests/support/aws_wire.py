"""The server side of AWS's wire formats: parses requests and writes answers.

botocore has the client side only. This module uses the same service models, and
`aws_shapes.py` parses every answer with botocore again.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "BadRequest",
    "Request",
    "answer_body",
    "error_body",
    "read_request",
    "service_model",
)

REQUEST_ID = "6a2b1c1e-7f43-4a44-9b9e-0f3c1d2e4a5b"
CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
SERVICES = ("autoscaling", "ec2", "ec2-instance-connect", "sqs", "sts")


class BadRequest(Exception):
    """A request that AWS could not parse."""


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request.

    Attributes:
        service: its name as botocore knows it.
        operation: the operation's model.
        parameters: as the client wrote them in Python.
        access_key: the id of the key that signed it.
        region: the region that it was signed for.
    """

    service: str
    operation: OperationModel
    parameters: dict[str, Any]
    access_key: str
    region: str


@cache
def service_model(service: str) -> ServiceModel:
    """Return the published model of a service."""
    return botocore.session.get_session().get_service_model(service)


def read_request(headers: Mapping[str, str], body: bytes) -> Request:
    """Parse a request.

    Raises:
        BadRequest: it is none, or it has parameters that the operation does not have.
    """
    match = CREDENTIAL.search(headers.get("Authorization", ""))
    if match is None:
        raise BadRequest("the request is not signed")
    access_key, region, service = match.groups()
    if service not in SERVICES:
        raise BadRequest(f"the fake cloud has no service {service}")
    model = service_model(service)
    if model.metadata["protocol"] == "json":
        prefix, _, name = headers.get("X-Amz-Target", "").partition(".")
        if prefix != model.metadata["targetPrefix"]:
            raise BadRequest(f"X-Amz-Target is not of {service}: {prefix}.{name}")
        operation = _operation(model, name)
        parameters: dict[str, Any] = _from_json(
            operation.input_shape, json.loads(body or b"{}"), name
        )
    else:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        name, version = form.pop("Action", ""), form.pop("Version", "")
        if version != model.metadata["apiVersion"]:
            raise BadRequest(f"{service} has no version {version!r}")
        operation = _operation(model, name)
        is_ec2 = model.metadata["protocol"] == "ec2"
        parameters = _Form(form, is_ec2=is_ec2).read(operation.input_shape, "") or {}
        if form:
            raise BadRequest(f"{name} has no parameters {sorted(form)}")
    return Request(service, operation, parameters, access_key, region)


def _operation(model: ServiceModel, name: str) -> OperationModel:
    if name not in model.operation_names:
        raise BadRequest(f"{model.service_name} has no operation {name!r}")
    return model.operation_model(name)


class _Form:
    """Takes the parameters of a structure out of a form; the remaining fields are unknown."""

    def __init__(self, form: dict[str, str], *, is_ec2: bool) -> None:
        self._form = form
        self._is_ec2 = is_ec2

    def read(self, shape: Shape | None, prefix: str) -> Any:
        if isinstance(shape, StructureShape):
            found = {
                name: self.read(member, self._join(prefix, self._name(member, name)))
                for name, member in shape.members.items()
            }
            return {name: value for name, value in found.items() if value is not None} or None
        if isinstance(shape, ListShape):
            return self._read_list(shape, prefix)
        if isinstance(shape, MapShape):
            return self._read_map(shape, prefix)
        text = self._form.pop(prefix, None)
        return None if text is None or shape is None else _from_text(shape, text)

    def _read_list(self, shape: ListShape, prefix: str) -> list[Any] | None:
        if self._form.get(prefix) == "":  # an empty list is written like this
            del self._form[prefix]
            return []
        if not self._is_ec2:
            if shape.serialization.get("flattened"):
                prefix = self._join(
                    prefix.rpartition(".")[0], self._name(shape.member, prefix.rpartition(".")[2])
                )
            else:
                prefix = self._join(prefix, self._name(shape.member, "member"))
        items: list[Any] = []
        while (item := self.read(shape.member, f"{prefix}.{len(items) + 1}")) is not None:
            items.append(item)
        return items or None

    def _read_map(self, shape: MapShape, prefix: str) -> dict[str, Any] | None:
        if not shape.serialization.get("flattened"):
            prefix = f"{prefix}.entry"
        found: dict[str, Any] = {}
        while True:
            entry = f"{prefix}.{len(found) + 1}"
            key = self.read(shape.key, f"{entry}.{self._name(shape.key, 'key')}")
            if key is None:
                return found or None
            found[key] = self.read(shape.value, f"{entry}.{self._name(shape.value, 'value')}")

    def _name(self, shape: Shape, default: str) -> str:
        if self._is_ec2:
            if "queryName" in shape.serialization:
                return str(shape.serialization["queryName"])
            name = str(shape.serialization.get("name", default))
            return name[0].upper() + name[1:] if "name" in shape.serialization else name
        return str(shape.serialization.get("name", default))

    @staticmethod
    def _join(prefix: str, name: str) -> str:
        return f"{prefix}.{name}" if prefix else name


def _from_text(shape: Shape, text: str) -> Any:
    match shape.type_name:
        case "boolean":
            if text not in {"true", "false"}:
                raise BadRequest(f"{text!r} is not a boolean")
            return text == "true"
        case "integer" | "long":
            return int(text)
        case "float" | "double":
            return float(text)
        case "timestamp":
            return datetime.fromisoformat(text)
        case "blob":
            return base64.b64decode(text)
        case _:
            return text


def _from_json(shape: Shape | None, value: Any, where: str) -> Any:
    if isinstance(shape, StructureShape):
        by_name = {str(m.serialization.get("name", n)): (n, m) for n, m in shape.members.items()}
        if unknown := value.keys() - by_name.keys():
            raise BadRequest(f"{where} has no parameters {sorted(unknown)}")
        return {
            by_name[key][0]: _from_json(by_name[key][1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if isinstance(shape, ListShape):
        return [_from_json(shape.member, item, where) for item in value]
    if isinstance(shape, MapShape):
        return {key: _from_json(shape.value, item, where) for key, item in value.items()}
    return base64.b64decode(value) if shape and shape.type_name == "blob" else value


def answer_body(operation: OperationModel, answer: Mapping[str, Any]) -> bytes:
    """Return the body of an answer, as the service would write it."""
    model = operation.service_model
    shape = operation.output_shape
    protocol = model.metadata["protocol"]
    if protocol == "json":
        return json.dumps(_to_json(shape, answer) if shape else {}).encode()
    root = ET.Element(f"{operation.name}Response", xmlns=model.metadata["xmlNamespace"])
    if protocol == "ec2":
        ET.SubElement(root, "requestId").text = REQUEST_ID
        if shape is not None:
            _write_members(root, shape, answer)
    else:
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result")
            _write_members(ET.SubElement(root, wrapper), shape, answer)
        metadata = ET.SubElement(root, "ResponseMetadata")
        ET.SubElement(metadata, "RequestId").text = REQUEST_ID
    return _document(root)


def error_body(service: str, code: str, message: str) -> bytes:
    """Return the body of an error, as the service would write it."""
    model = service_model(service)
    protocol = model.metadata["protocol"]
    if protocol == "json":
        return json.dumps({"__type": code, "message": message}).encode()
    if protocol == "ec2":
        root = ET.Element("Response")
        error = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
        ET.SubElement(root, "RequestID").text = REQUEST_ID
    else:
        root = ET.Element("ErrorResponse", xmlns=model.metadata["xmlNamespace"])
        error = ET.SubElement(root, "Error")
        ET.SubElement(error, "Type").text = "Sender"
        ET.SubElement(root, "RequestId").text = REQUEST_ID
    ET.SubElement(error, "Code").text = code
    ET.SubElement(error, "Message").text = message
    return _document(root)


def _document(root: ET.Element) -> bytes:
    text = ET.tostring(root, encoding="unicode").replace("\r", "&#13;")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def _write_members(parent: ET.Element, shape: Shape, value: Mapping[str, Any]) -> None:
    assert isinstance(shape, StructureShape)
    for name, item in value.items():
        # Members that the model lacks are written too; `aws_shapes.py` reports them.
        member = shape.members.get(name)
        if member is None:
            ET.SubElement(parent, name).text = str(item)
        elif item is not None:
            _write(parent, member, str(member.serialization.get("name", name)), item)


def _write(parent: ET.Element, shape: Shape, name: str, value: Any) -> None:
    if isinstance(shape, StructureShape):
        _write_members(ET.SubElement(parent, name), shape, value)
    elif isinstance(shape, ListShape):
        if shape.serialization.get("flattened"):
            where, item_name = parent, str(shape.member.serialization.get("name", name))
        else:
            where = ET.SubElement(parent, name)
            item_name = str(shape.member.serialization.get("name", "member"))
        for item in value:
            _write(where, shape.member, item_name, item)
    elif isinstance(shape, MapShape):
        where = ET.SubElement(parent, name)
        for key, item in value.items():
            entry = ET.SubElement(where, "entry")
            _write(entry, shape.key, str(shape.key.serialization.get("name", "key")), key)
            _write(entry, shape.value, str(shape.value.serialization.get("name", "value")), item)
    else:
        ET.SubElement(parent, name).text = _to_text(shape, value)


def _to_text(shape: Shape, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return str(value)


def _to_json(shape: Shape | None, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        return {
            str(shape.members[n].serialization.get("name", n)) if n in shape.members else n: (
                _to_json(shape.members.get(n), item)
            )
            for n, item in value.items()
        }
    if isinstance(shape, ListShape):
        return [_to_json(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {key: _to_json(shape.value, item) for key, item in value.items()}
    if isinstance(value, datetime):
        return value.timestamp()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
