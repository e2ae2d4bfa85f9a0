"""The words of an operator become requirements for an installer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting._metadata import PluginEntry
from fleeting._references import PluginReference
from fleeting.errors import ConfigError
from fleeting.install.requests import (
    Request,
    did_you_mean,
    parse_request,
    request_for,
    satisfied_by,
)

if TYPE_CHECKING:
    from pathlib import Path

INSTALLED = [
    PluginEntry("aws", "fleeting-plugin-aws", "1.5.2"),
    PluginEntry("local", "fleeting", "1.0.0"),
]


@pytest.mark.parametrize(
    ("word", "requirement", "plugin"),
    [
        ("aws", "fleeting-plugin-aws", "aws"),
        ("aws:latest", "fleeting-plugin-aws", "aws"),
        ("aws:1", "fleeting-plugin-aws==1.*", "aws"),
        ("aws:1.5", "fleeting-plugin-aws==1.5.*", "aws"),
        ("aws:1.5.2", "fleeting-plugin-aws==1.5.2", "aws"),
        ("fleeting-plugin-aws", "fleeting-plugin-aws", "aws"),
        ("registry.example/x/aws:1", "fleeting-plugin-aws==1.*", "aws"),
        ("aws==1.2", "fleeting-plugin-aws==1.2", "aws"),
        ("fleeting-plugin-aws>=1.2,<2", "fleeting-plugin-aws>=1.2,<2", "aws"),
        ("Acme_Cloud[fast] ~= 1.0", "fleeting-plugin-Acme_Cloud[fast] ~= 1.0", "Acme_Cloud"),
    ],
)
def test_names_and_requirements(word: str, requirement: str, plugin: str) -> None:
    """A name becomes a requirement of the distribution that is named after the plugin."""
    request = parse_request(word)
    distribution = f"fleeting-plugin-{plugin.lower().replace('_', '-')}"
    assert (request.requirement, request.plugin) == (requirement, plugin)
    assert request.distribution == distribution


@pytest.mark.parametrize(
    ("url", "distribution"),
    [
        ("https://x.example/a/fleeting_plugin_x-1.0-py3-none-any.whl", "fleeting-plugin-x"),
        ("https://x.example/fleeting-plugin-x-1.0.tar.gz#sha256=0", ""),
        ("git+https://x.example/plugin.git@v1", ""),
    ],
)
def test_urls(url: str, distribution: str) -> None:
    """A URL is passed on as it is; the name of a wheel names the distribution."""
    assert parse_request(url) == Request(url, distribution)


def test_paths(tmp_path: Path) -> None:
    """A path becomes absolute, and a wheel names the distribution."""
    wheel = tmp_path / "fleeting_plugin_y-2.0-py3-none-any.whl"
    wheel.touch()
    assert parse_request(str(wheel)) == Request(str(wheel), "fleeting-plugin-y")
    assert parse_request(f"{tmp_path}/./") == Request(str(tmp_path))


@pytest.mark.parametrize("word", ["", "a b", "aws:", ">=1", "@", "../good/:1", "-r x"])
def test_nonsense_is_refused(word: str) -> None:
    """A word that cannot name a plugin is wrong input."""
    with pytest.raises(ConfigError):
        parse_request(word)


@pytest.mark.parametrize("word", ["./gone", "~no-such-user/x", f"./{'x' * 300}", "gone.whl"])
def test_path_that_does_not_exist(word: str) -> None:
    """A path that does not exist is refused with the path."""
    with pytest.raises(ConfigError, match="does not exist"):
        parse_request(word)


@pytest.mark.parametrize(
    ("word", "satisfied"),
    [("aws", True), ("aws:1", True), ("aws:1.4", False), ("azure", False), ("aws>=1", False)],
)
def test_installed_plugin_satisfies(word: str, *, satisfied: bool) -> None:
    """An installed plugin suffices if its version fits; only an installer judges requirements."""
    assert (satisfied_by(parse_request(word), INSTALLED) is not None) is satisfied


def test_built_in_plugin_in_another_version() -> None:
    """A built-in plugin has the version of fleeting and no other."""
    assert satisfied_by(parse_request("local:1"), INSTALLED) == INSTALLED[1]
    with pytest.raises(ConfigError, match=r"local is built into fleeting 1\.0\.0"):
        satisfied_by(parse_request("local:99"), INSTALLED)


def test_plugin_of_a_file_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in a config file stays a name, even if a wheel of that name is here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.whl").touch()
    assert parse_request("evil.whl").requirement == str(tmp_path / "evil.whl")
    assert request_for(PluginReference("evil.whl")).requirement == "fleeting-plugin-evil.whl"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("asw", "; did you mean aws instead of asw?"),
        ("aws2:1", "; did you mean aws instead of aws2?"),
        ("aws", ""),
        ("zzz", ""),
        ("https://x.example/y", ""),
    ],
)
def test_misspelt_name(word: str, hint: str) -> None:
    """A name that resembles one of our own plugins gets a hint."""
    assert did_you_mean([parse_request(word)]) == hint
