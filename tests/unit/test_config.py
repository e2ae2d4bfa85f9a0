from __future__ import annotations

import enum
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from fleeting._config import ConnectorConfig, GroupConfig
from fleeting._decoding import decode, examine, nearest, parse_assignments, read_toml
from fleeting.errors import ConfigError
from fleeting.types import Duration


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 0


class _Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    needed: str
    wait: Duration | None = None
    root: Path | None = None
    parts: tuple[_Part, ...] = ()
    either: str | _Part | None = None
    group: GroupConfig = GroupConfig()


def _problems(data: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        decode({"needed": "", **data}, _Whole, where="a.toml")
    return caught.value.problems


def test_toml_file_is_read(tmp_path: Path) -> None:
    """A TOML file becomes a dictionary."""
    path = tmp_path / "a.toml"
    path.write_text('plugin = "aws"\n[plugin_config]\nname = "gruppe-ä"\n', encoding="utf-8")
    assert read_toml(path) == {"plugin": "aws", "plugin_config": {"name": "gruppe-ä"}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the file does not exist; check the path"),
        (b"a = \xff", "byte 4 is not UTF-8; save the file as UTF-8"),
        (b"a = 1\nb = = 2", r"the file is not valid TOML: .*line 2, column 5.*; correct that line"),
    ],
)
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """The message is one sentence with the file, the place, the mistake and the fix."""
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_toml(path)
    (sentence,) = caught.value.problems
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence


def test_folder_cannot_be_read(tmp_path: Path) -> None:
    """A folder in place of a file is reported like a file that cannot be read."""
    with pytest.raises(ConfigError, match=r"cannot be read \(is a directory\); check"):
        read_toml(tmp_path)


def test_durations_and_paths_are_decoded() -> None:
    """Durations and paths are decoded from strings, at any depth."""
    connector = {"keepalive": "30s", "key_path": "~/key", "username": "me"}
    data = {
        "needed": "yes",
        "wait": "1m",
        "root": "/srv",
        "parts": [{"size": 1}],
        "either": {"size": 2},
        "group": {"plugin": "aws", "connector_config": connector},
    }
    whole = decode(data, _Whole, where="a.toml")
    assert (whole.wait, whole.root) == (timedelta(minutes=1), Path("/srv"))
    assert (whole.parts, whole.either) == ((_Part(1),), _Part(2))
    settings = whole.group.connector_config.settings()
    assert settings.keepalive == timedelta(seconds=30)
    assert (settings.username, settings.key_path) == ("me", Path("~/key"))


def test_unknown_keys_are_reported() -> None:
    """Each unknown key is reported with its path and the most similar known key."""
    data: dict[str, object] = {
        "wiat": "1m",
        "parts": [{"size": 1}, {"sise": 2}],
        "either": {"Size-": 3},
        "group": {"connector_config": {"user-name": "me"}},
        "zzz": 0,
    }
    assert set(_problems(data)) == {
        "a.toml: wiat: unknown key; did you mean 'wait'?",
        "a.toml: parts[1].sise: unknown key; did you mean 'size'?",
        "a.toml: either.Size-: unknown key; did you mean 'size'?",
        "a.toml: group.connector_config.user-name: unknown key; did you mean 'username'?",
        "a.toml: zzz: unknown key; known keys: either, group, needed, parts, root, wait",
    }


def test_shared_table_may_have_unknown_keys() -> None:
    """A table that other programs read, too, may have keys that fleeting does not know."""
    group = {"plugin": "aws", "capacity_per_instance": 2}
    assert decode({"needed": "", "group": group}, _Whole, where="a.toml").group.plugin == "aws"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"needed": 1}, "a.toml: needed: expected a string, got an integer"),
        (
            {"parts": [{"size": "x"}]},
            'a.toml: parts[0].size: expected an integer, got the string "x"',
        ),
        (
            {"wait": 20},
            'a.toml: wait: expected a duration such as "90s" or "20m", got the integer 20',
        ),
        (
            {"wait": "20"},
            'a.toml: wait: \'20\' is not a duration; write for example "90s", "20m" or "1h30m"',
        ),
        ({"root": 7}, "a.toml: root: expected a path in quotes, got the integer 7"),
    ],
)
def test_wrong_value_is_reported(data: dict[str, object], problem: str) -> None:
    """The message has the file, the path, the expected type and the value."""
    assert _problems(data) == (problem,)


def test_all_problems_are_reported_together() -> None:
    """Unknown keys, wrong values and missing keys are reported in the order of the file."""
    data: dict[str, object] = {
        "wiat": 1,
        "wait": "soon",
        "parts": [{"size": "x"}, 3, {"sise": 1}],
        "either": {"size": "y"},
        "group": {"connector_config": {"os": 1, "arch": 2}},
    }
    with pytest.raises(ConfigError) as caught:
        decode(data, _Whole, where="a.toml")
    assert [
        problem.removeprefix("a.toml: ").split(":")[0] for problem in caught.value.problems
    ] == [
        "wiat",
        "wait",
        "parts[0].size",
        "parts[1]",
        "parts[2].sise",
        "either.size",
        "group.connector_config.os",
        "group.connector_config.arch",
        "the key 'needed' is missing; add it",
    ]


def test_valid_values_are_kept() -> None:
    """Valid values are decoded despite mistakes, and items after a mistake keep their index."""
    data: dict[str, object] = {
        "needed": "yes",
        "wait": "soon",
        "parts": ["x", {"size": "y"}, {"size": 3}],
    }
    whole, problems = examine(data, _Whole)
    assert whole == _Whole(needed="yes", parts=(_Part(), _Part(), _Part(3)))
    assert [problem.path for problem in problems] == ["wait", "parts[0]", "parts[1].size"]
    assert examine({"needed": 1}, _Whole)[0] is None


class _Jobs(msgspec.Struct):
    named: dict[str, _Part] = {}
    pairs: tuple[int, str] = (0, "")
    jobs: list[_Whole] = []


def test_entries_of_dicts_and_tuples_are_examined() -> None:
    """Each entry is examined; an entry without a default is left out if it is invalid."""
    data = {
        "named": {"a b": {"size": "x"}, "c": {"size": 1}},
        "pairs": [1, 2],
        "jobs": [{}, {"needed": "x"}],
    }
    found, problems = examine(data, _Jobs)
    assert found == _Jobs(named={"a b": _Part(), "c": _Part(1)}, jobs=[_Whole("x")])
    assert [str(problem) for problem in problems] == [
        'named."a b".size: expected an integer, got the string "x"',
        "pairs[1]: expected a string, got an integer",
        "jobs[0]: the key 'needed' is missing; add it",
    ]


class _Form(msgspec.Struct):
    zone: Annotated[str, msgspec.Meta(pattern="^[a-z]+-[0-9]$")] = ""


def test_wrong_form_is_told_without_the_words_of_a_library() -> None:
    """The message has the pattern that the value must match."""
    with pytest.raises(ConfigError) as caught:
        decode({"zone": "X"}, _Form, where="a.toml")
    assert caught.value.problems == ("a.toml: zone: does not have the form ^[a-z]+-[0-9]$",)


class _Range(msgspec.Struct):
    low: int = 0
    high: int = 0
    other: int = 0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high; swap them")


def test_check_of_several_keys_is_reported_with_the_rest() -> None:
    """An error from the check of a whole struct is one more problem."""
    found, problems = examine({"low": 2, "high": 1, "other": "x"}, _Range)
    assert found is None
    assert [str(problem) for problem in problems] == [
        'other: expected an integer, got the string "x"',
        "low is above high; swap them",
    ]


class _Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    colour: _Colour = _Colour.RED
    parts: list[_Part] = []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"colour": "green"}, 'colour: expected "red" or "blue", got the string "green"'),
        ({"parts": {}}, "parts: expected a list, got a table; write [[ ]] around its name"),
        ({"Size": 1}, "Size: unknown key; did you mean 'parts.size'?"),
        ({"Colour": 1}, "Colour: unknown key; did you mean 'colour'?"),
        ({"a\nb": 1}, '"a\\nb": unknown key; known keys: colour, parts'),
        ({"a" * 200: 1}, f'"{"a" * 100}": unknown key; known keys: colour, parts'),
    ],
)
def test_fix_depends_on_the_mistake(data: dict[str, object], problem: str) -> None:
    """The message names the choices, the syntax of a list of tables, or the right table."""
    assert [str(found) for found in examine(data, _Choice)[1]] == [problem]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("IdleCount", "idle_count"), ("idle-count", "idle_count"), ("idlecuont", "idle_count")],
)
def test_nearest_word_is_found(word: str, meant: str) -> None:
    """Words in another notation and with typing errors are recognized."""
    assert nearest(word, ["idle_time", "idle_count", "max_use_count"]) == meant
    assert nearest("zzz", ["idle_time"]) is None


def test_missing_key_is_reported() -> None:
    """The message names the missing key."""
    with pytest.raises(ConfigError, match=r"^a.toml: the key 'needed' is missing; add it$"):
        decode({}, _Whole, where="a.toml")


def test_secrets_are_not_shown() -> None:
    """No message or repr contains a password or a setting of the plugin."""
    secret = {"password": ["hunter2"]}
    (problem,) = _problems({"group": {"connector_config": secret}})
    assert problem.startswith("a.toml: group.connector_config.password: expected a string")
    config = GroupConfig(
        plugin="aws",
        plugin_config={"token": "hunter2"},
        connector_config=ConnectorConfig(username="me", password="hunter2"),  # noqa: S106 - it must not be shown
    )
    with pytest.raises(ConfigError) as caught:
        parse_assignments(["a=1", "password:hunter2"], where="--plugin-config")
    assert "number 2 is not KEY=VALUE" in str(caught.value)
    assert "hunter2" not in problem + repr(config) + repr(config.connector_config.settings())
    assert "hunter2" not in str(caught.value)
    assert "'aws'" in repr(config)


def test_assignments_are_parsed() -> None:
    """A value is TOML if it is valid TOML, otherwise text; a dot separates tables."""
    pairs = ["a=3", "b=true", 'c="3"', "d=x=y", "e.f=[1, 2]", "e.g=", "h=1\nz = 2"]
    assert parse_assignments(pairs, where="-o") == {
        "a": 3,
        "b": True,
        "c": "3",
        "d": "x=y",
        "e": {"f": [1, 2], "g": ""},
        "h": "1\nz = 2",
    }


@pytest.mark.parametrize("pairs", [["a=1", "a.b=2"], ["a.b=2", "a=1"], ["a.b=1", "a.b.c=2"]])
def test_key_with_a_value_and_keys_below_is_refused(pairs: list[str]) -> None:
    """A key cannot be a value and a table, in either order."""
    with pytest.raises(ConfigError, match="has both a value and keys below it; remove one of them"):
        parse_assignments(pairs, where="-o")


@pytest.mark.parametrize("pair", ["", "a", "=1"])
def test_invalid_assignment_is_refused(pair: str) -> None:
    """The message shows an example of an assignment."""
    with pytest.raises(ConfigError, match=r"^-o is not KEY=VALUE; write for example -o max_size=4"):
        parse_assignments([pair], where="-o")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = " + "[" * 10_000, "nested too deeply"),
        ("a = " + "9" * 5_000, "a number that is too long"),
        (".".join(["a"] * 100_000) + " = 1", "nested too deeply"),
        ("[" + " . ".join(['"a b"', "'c'"] * 50_000) + "]", "nested too deeply"),
    ],
)
def test_limits_of_the_toml_parser_are_reported(tmp_path: Path, text: str, expected: str) -> None:
    """TOML beyond the limits of Python's parser is a problem of the file."""
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_toml(path)


def test_text_with_many_dots_is_valid(tmp_path: Path) -> None:
    """Many dots in a value are not a deeply nested key."""
    path = tmp_path / "a.toml"
    text = ".".join(["a"] * 99) + ' = "' + "a. " * 90 + '.........."'
    path.write_text(text)
    assert "a" in read_toml(path)


@pytest.mark.parametrize("key_path", ["", "a\0b"])
def test_invalid_path_is_refused(key_path: str) -> None:
    """An empty path would be the current folder, and no system call accepts NUL."""
    with pytest.raises(ConfigError, match=r"key_path: expected a path such as"):
        decode({"key_path": key_path}, ConnectorConfig, where="a.toml")
