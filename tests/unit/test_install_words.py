"""What somebody types becomes what a package installer understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting._references import PluginReference
from fleeting._registry import PluginEntry
from fleeting.errors import ConfigError
from fleeting.install.requests import Wish, holder, parse_wish, renamed, wish_for

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = [
    PluginEntry("aws", "fleeting-plugin-aws", "1.5.2"),
    PluginEntry("hetzner", "Acme_Hetzner", "2.0"),
]


@pytest.mark.parametrize(
    ("word", "requirement", "distribution", "plugin"),
    [
        ("aws", "fleeting-plugin-aws", "fleeting-plugin-aws", "aws"),
        ("aws:latest", "fleeting-plugin-aws", "fleeting-plugin-aws", "aws"),
        ("aws:1", "fleeting-plugin-aws==1.*", "fleeting-plugin-aws", "aws"),
        ("aws:1.5", "fleeting-plugin-aws==1.5.*", "fleeting-plugin-aws", "aws"),
        ("aws:1.5.2", "fleeting-plugin-aws==1.5.2", "fleeting-plugin-aws", "aws"),
        ("fleeting-plugin-aws", "fleeting-plugin-aws", "fleeting-plugin-aws", "aws"),
        ("registry.example/x/aws:1", "fleeting-plugin-aws==1.*", "fleeting-plugin-aws", "aws"),
        ("fleeting-plugin-aws>=1.2", "fleeting-plugin-aws>=1.2", "fleeting-plugin-aws", ""),
        ("Acme_Cloud[fast] ~= 1.0", "Acme_Cloud[fast] ~= 1.0", "acme-cloud", ""),
    ],
)
def test_names_and_requirements(
    word: str, requirement: str, distribution: str, plugin: str
) -> None:
    """A name gives a requirement of the distribution that is named for it; a requirement stays."""
    wish = parse_wish(word)
    assert (wish.requirement, wish.distribution, wish.plugin) == (requirement, distribution, plugin)
    assert not wish.is_direct


@pytest.mark.parametrize(
    ("url", "distribution"),
    [
        ("https://x.example/a/fleeting_plugin_x-1.0-py3-none-any.whl", "fleeting-plugin-x"),
        ("https://x.example/fleeting-plugin-x-1.0.tar.gz#sha256=0", "fleeting-plugin-x"),
        ("git+https://x.example/plugin.git@v1", ""),
    ],
)
def test_urls(url: str, distribution: str) -> None:
    """A URL is taken as it is; the name of an archive tells the distribution."""
    assert parse_wish(url) == Wish(url, url, distribution, is_direct=True)


def test_named_url() -> None:
    """A requirement can name its place."""
    wish = parse_wish("fleeting-plugin-x @ git+https://x.example/plugin.git")
    assert wish.requirement == "fleeting-plugin-x @ git+https://x.example/plugin.git"
    assert (wish.distribution, wish.is_direct) == ("fleeting-plugin-x", True)


def test_paths(tmp_path: Path) -> None:
    """A path becomes a whole one, and the project or the file name tells the distribution."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "Fleeting.Plugin_X"\n')
    wheel = tmp_path / "fleeting_plugin_y-2.0-py3-none-any.whl"
    wheel.touch()
    assert parse_wish(str(project)).distribution == "fleeting-plugin-x"
    assert parse_wish(str(wheel)).distribution == "fleeting-plugin-y"
    assert parse_wish(f"{project}/../project").requirement == str(project)


@pytest.mark.parametrize(
    "word",
    ["", "-r", "--index-url=x", "a b", "aws>=1;", "aws:", ">=1", "./gone", "gone.whl", "a;b;c d"],
)
def test_nonsense_is_refused(word: str) -> None:
    """What is an option, or no name, or a path where nothing is, is the operator's to mend."""
    if word == "a;b;c d":
        assert parse_wish(word).distribution == "a", "markers are the installer's to judge"
        return
    with pytest.raises(ConfigError):
        parse_wish(word)


def test_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    """A folder that nothing can be built from is named."""
    with pytest.raises(ConfigError, match=r"no pyproject\.toml"):
        parse_wish(str(tmp_path))


@pytest.mark.parametrize(
    ("word", "satisfied"),
    [("aws", True), ("aws:1", True), ("aws:1.4", False), ("azure", False), ("hetzner:2", True)],
)
def test_what_is_installed_satisfies(word: str, *, satisfied: bool) -> None:
    """An installed plugin is enough if its version is one that was asked for."""
    assert parse_wish(word).is_satisfied(ENTRIES) is satisfied


def test_requirement_is_for_the_installer_to_judge() -> None:
    """Whether a requirement is satisfied, only an installer knows."""
    assert not parse_wish("fleeting-plugin-aws>=1").is_satisfied(ENTRIES)


def test_plugin_is_upgraded_where_it_comes_from() -> None:
    """A plugin that another distribution carries is looked for there, with its constraint."""
    wish = parse_wish("hetzner:2")
    moved = renamed(wish, holder(wish, ENTRIES))
    assert (moved.requirement, moved.distribution) == ("acme-hetzner==2.*", "acme-hetzner")
    same = parse_wish("aws:1")
    assert renamed(same, holder(same, ENTRIES)) == same
    new = parse_wish("azure")
    assert renamed(new, holder(new, ENTRIES)) == new


@pytest.mark.parametrize("word", ["~no-such-user/plugin", f"./{'x' * 300}", "gone.whl"])
def test_place_that_cannot_exist_is_named(word: str) -> None:
    """A user that is not known and a name that is too long are nothing to install, as a gap is."""
    with pytest.raises(ConfigError, match="there is nothing at"):
        parse_wish(word)


def test_plugin_of_a_file_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in a config file stays one, even if a wheel of that name lies here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.whl").touch()
    assert parse_wish("evil.whl").is_direct
    assert wish_for(PluginReference("evil.whl")).requirement == "fleeting-plugin-evil.whl"
