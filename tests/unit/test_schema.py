"""The keys and the JSON Schema of a configuration, from its struct."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from fleeting._config import ConnectorConfig
from fleeting._decoding import decode
from fleeting._keys import Key, example, list_keys
from fleeting._schema import json_schema
from fleeting.local import LocalConfig
from fleeting.types import Duration


class Size(enum.Enum):
    """An enumeration."""

    SMALL = "small"
    LARGE = "large"


class Custom:
    """A type of a plugin."""


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(gt=0, le=100, description="In\n gigabytes.")] = 8


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A struct that another one extends."""

    region: Annotated[Literal["north", 3], msgspec.Meta(description="The\nregion.")] = 3
    group: Annotated[str, msgspec.Meta(description="Replaced.")]


class Example(Base, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"id": "ID"}):
    group: Annotated[
        str, msgspec.Meta(min_length=1, pattern="^[a-z]+$", description="An existing group.")
    ]
    id: Annotated[Path | None, msgspec.Meta(description="A file.")] = None
    size: Size = Size.SMALL
    wait: Duration = Duration(seconds=90)
    disks: list[Disk] = []
    first: Disk = Disk()
    pairs: tuple[int, ...] | float | None = None
    tables: dict[str, Disk] = {}
    anything: Any = None
    custom: Custom | None = None
    again: Example | None = None


def test_keys_have_the_types_of_toml() -> None:
    """Types, defaults, descriptions and the keys of tables are those of a TOML file."""
    assert list_keys(Example) == [
        Key(name="region", type='"north" or 3', default=3, text="The region."),
        Key(
            name="group",
            type="string, matching ^[a-z]+$",
            required=True,
            text="An existing group.",
        ),
        Key(name="ID", type="path", text="A file."),
        Key(name="size", type='"small" or "large"', default="small"),
        Key(name="wait", type="duration", default="1m30s"),
        Key(name="disks", type="list of table", default=[]),
        Key(
            name="disks[].size",
            type="integer, more than 0, at most 100",
            default=8,
            text="In gigabytes.",
        ),
        Key(name="first", type="table"),
        Key(
            name="first.size",
            type="integer, more than 0, at most 100",
            default=8,
            text="In gigabytes.",
        ),
        Key(name="pairs", type="list of integer or number"),
        Key(name="tables", type="table of table", default={}),
        Key(name="anything", type="anything"),
        Key(name="custom", type="Custom"),
        Key(name="again", type="table"),
    ]


def test_schema_is_complete() -> None:
    """The schema has limits, defaults, descriptions and names; unknown types accept anything."""
    schema = json_schema(Example)
    assert json.loads(json.dumps(schema)) == schema
    found = schema["$defs"]["Example"]
    assert found["additionalProperties"] is False
    assert found["required"] == ["group"]
    properties = found["properties"]
    assert properties["region"] == {
        "enum": [3, "north"],
        "description": "The region.",
        "default": 3,
    }
    assert properties["group"]["minLength"] == 1
    assert properties["ID"]["type"] == "string"
    assert properties["size"]["default"] == "small"
    assert properties["wait"]["default"] == "1m30s"
    assert properties["custom"] == {"title": "Custom"}
    assert schema["$defs"]["Disk"]["properties"]["size"] == {
        "type": "integer",
        "exclusiveMinimum": 0,
        "maximum": 100,
        "description": "In gigabytes.",
        "default": 8,
    }
    assert '"null"' not in json.dumps(schema)


@pytest.mark.parametrize("shape", [LocalConfig, ConnectorConfig])
def test_built_in_keys_are_described(shape: type[msgspec.Struct]) -> None:
    """Each key of the structs in this distribution has a description."""
    assert [key.name for key in list_keys(shape) if not key.text] == []


def test_struct_without_descriptions() -> None:
    """A struct without descriptions gives types and defaults only."""
    made = msgspec.defstruct("Made", [("count", int), ("name", str, "x")])
    assert list_keys(made) == [
        Key(name="count", type="integer", required=True),
        Key(name="name", type="string", default="x"),
    ]
    assert "description" not in json_schema(made)["$defs"]["Made"]


class RequiredKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    size: Size
    region: Literal["north", "south"]
    count: Annotated[int, msgspec.Meta(ge=3)]
    above: Annotated[int, msgspec.Meta(gt=3)]
    share: float | None
    wait: Duration
    path: Path
    disk: Disk
    zones: list[str]
    sizes: Annotated[list[Size], msgspec.Meta(min_length=1)]
    labels: dict[str, str]
    is_new: bool
    optional: int = 7


def test_example_is_valid() -> None:
    """The example has exactly the required keys and can be decoded."""
    table = example(RequiredKeys)
    assert set(table) == {field for field in RequiredKeys.__struct_fields__ if field != "optional"}
    read = decode(table, RequiredKeys, where="example")
    assert (read.count, read.above, read.wait, read.sizes) == (
        3,
        4,
        Duration(minutes=1),
        [Size.SMALL],
    )
