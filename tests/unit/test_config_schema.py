"""The JSON Schema of `config.toml` accepts the same files as the reader."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting import json_schema
from fleeting._config import ConnectorConfig
from fleeting.types import Duration
from taskscaler.config import autoscaler
from taskscaler.config.runners import FileConfig, RunnerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    import msgspec

SCHEMA = json_schema(FileConfig)
DEFINITIONS: dict[str, dict[str, Any]] = SCHEMA["$defs"]
STRUCTS: list[type[msgspec.Struct]] = [
    FileConfig,
    RunnerConfig,
    ConnectorConfig,
    *(getattr(autoscaler, name) for name in autoscaler.__all__ if name.endswith("Config")),
]
PATTERN: str = DEFINITIONS["PolicyConfig"]["properties"]["idle_time"]["pattern"]


def properties() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each property of each table, with its path."""
    for name, definition in DEFINITIONS.items():
        for key, value in definition.get("properties", {}).items():
            yield f"{name}.{key}", value


@pytest.mark.parametrize("struct", STRUCTS)
def test_schema_has_exactly_the_keys_of_the_structs(struct: type[msgspec.Struct]) -> None:
    """Each table has the keys of its struct, and refuses other keys if they are errors."""
    definition = DEFINITIONS[struct.__name__]
    assert list(definition["properties"]) == list(struct.__struct_encode_fields__)
    closed = struct.__struct_config__.forbid_unknown_fields
    assert definition.get("additionalProperties", True) is not closed


def test_schema_is_json_and_describes_every_key() -> None:
    """The schema is valid JSON, describes each key, and has no null."""
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert [path for path, value in properties() if not value.get("description")] == []
    assert '"null"' not in json.dumps(SCHEMA)


def test_defaults_and_ranges_are_those_of_the_reader() -> None:
    """Defaults are as in a file, and limits are those that the reader checks."""
    found = dict(properties())
    assert found["ExtensionsConfig.creation_timeout"]["default"] == "10m"
    assert found["ExtensionsConfig.placement"]["default"] == "pack"
    assert found["PolicyConfig.periods"]["default"] == ["* * * * *"]
    assert found["AutoscalerConfig.capacity_per_instance"]["minimum"] == 1
    assert found["AutoscalerConfig.capacity_per_instance"]["maximum"] == 1_000_000
    assert found["ScaleThrottleConfig.limit"]["minimum"] == -1
    assert "minimum" not in found["RunnerConfig.limit"]


PARTS = st.tuples(
    st.decimals(0, 10_000, places=2).map(str),
    st.sampled_from(["h", "m", "s", "ms", "us", "µs", "μs", "ns"]),
).map("".join)
TEXTS = st.lists(PARTS, max_size=4).map("".join) | st.text("0123456789.hmsu-+ ", max_size=8)


@given(TEXTS)
def test_pattern_matches_exactly_the_durations(text: str) -> None:
    """The pattern matches a text if and only if the reader accepts it as a duration."""
    try:
        Duration.parse(text)
    except ValueError:
        assert not re.search(PATTERN, text)
    else:
        assert re.search(PATTERN, text.strip())
