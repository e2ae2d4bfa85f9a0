"""Who misspells a name is told what it could have been."""

from __future__ import annotations

from fleeting.install.commands import Sources
from fleeting.install.near import index_of, listed_plugins, near_names


def test_near_names() -> None:
    """Our own plugins, and those that are known, are near if they are alike; the same is not."""
    assert near_names("fleeting-plugin-asw", []) == ["aws"]
    assert near_names("google-cloud", []) == ["googlecloud"]
    assert near_names("fleeting_plugin_hetzer", ["hetzner"]) == ["hetzner"]
    assert near_names("aws", []) == []
    assert near_names("zzz", ["hetzner"]) == []


def test_plugins_of_an_index() -> None:
    """Of the projects of an index those count that are named as plugins are."""
    page = '<a href="/x/">fleeting-plugin-b</a><br><a href="y">Fleeting_Plugin.a</a> <a>click</a>'
    assert listed_plugins(page) == ["a", "b"]


def test_index_that_is_asked() -> None:
    """It is the one of the options, else the one in the variables of the installer that is used."""
    environ = {"PIP_INDEX_URL": "https://p", "UV_DEFAULT_INDEX": "https://u"}
    assert index_of(Sources(index_url="https://o"), environ, uses_pip=True) == "https://o"
    assert index_of(Sources(extra_index_urls=("https://e",)), {}, uses_pip=True) == "https://e"
    assert index_of(Sources(), environ, uses_pip=True) == "https://p"
    assert index_of(Sources(), environ, uses_pip=False) == "https://u"
    assert index_of(Sources(no_index=True), environ, uses_pip=True) == ""
    assert index_of(Sources(), {}, uses_pip=True) == ""
