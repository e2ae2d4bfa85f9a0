from __future__ import annotations

import importlib
import importlib.metadata
import sys
import zipfile
from typing import TYPE_CHECKING, TypeAlias

import pytest

from fleeting._metadata import PluginEntry, entry_points
from fleeting._registry import Registry
from fleeting.errors import (
    ConfigError,
    PluginBroken,
    PluginConflict,
    PluginMismatch,
    PluginNotFound,
)
from fleeting.types import ConnectorSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROVIDER = """
from fleeting.plugin import hookimpl
from fleeting.testing import FakeProvider

class Provider(FakeProvider):
    name = {name!r}

@hookimpl
def fleeting_provider():
    return Provider()
"""

CONNECTOR = """
from fleeting.plugin import hookimpl
from fleeting.testing import FakeConnector

@hookimpl
def fleeting_connector():
    return FakeConnector()
"""

Install: TypeAlias = "Callable[..., None]"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with one plugin, for this test only."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def install(
        name: str, source: str | None, *, distribution: str = "", group: str = "fleeting"
    ) -> None:
        distribution = distribution or f"fleeting-plugin-{name}"
        module = distribution.replace("-", "_")
        if source is not None:
            (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        metadata = tmp_path / f"{module}-1.2.3.dist-info"
        metadata.mkdir()
        header = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2.3\n"
        (metadata / "METADATA").write_text(header)
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
        importlib.invalidate_caches()

    return install


def test_listing_imports_nothing(install: Install) -> None:
    """Plugins are listed with name, distribution and version, also one that cannot be imported."""
    install("nimbus", "raise RuntimeError('imported')")
    entries = Registry().providers()
    assert PluginEntry("nimbus", "fleeting-plugin-nimbus", "1.2.3") in entries
    assert entries == sorted(entries, key=lambda entry: entry.name)


def test_provider_by_name(install: Install) -> None:
    """A provider is imported when it is requested, and only once."""
    install("nimbus", PROVIDER.format(name="nimbus"))
    registry = Registry()
    provider = registry.provider("nimbus")
    assert provider.name == "nimbus"
    assert registry.provider("nimbus") is provider


def test_connector_by_protocol(install: Install) -> None:
    """A connector is found by its protocol, and created only once."""
    install("fake", CONNECTOR, group="fleeting.connectors")
    registry = Registry()
    assert "fake" in [entry.name for entry in registry.connectors()]
    connector = registry.connector("fake")
    assert connector.protocol == "fake"
    assert registry.connector("fake") is connector


def test_unknown_name(install: Install) -> None:
    """The error for an unknown name lists the installed names, and says how to install it."""
    install("nimbus", PROVIDER.format(name="nimbus"))
    hint = "did you mean 'nimbus'\\? Otherwise run `fleeting install nimbsu`"
    with pytest.raises(PluginNotFound, match=hint) as caught:
        Registry().provider("nimbsu")
    assert "nimbus" in caught.value.installed
    with pytest.raises(PluginNotFound, match="no connector named 'telnet'"):
        Registry().connector("telnet")


def test_settings_without_a_connection(tmp_path: Path) -> None:
    """A protocol without a connector, and a key that cannot be read, are refused by metadata."""
    registry = Registry()
    registry.check_connector(ConnectorSettings(protocol="ssh"))
    with pytest.raises(ConfigError, match=r"config\.protocol: no connector.*mean 'ssh'"):
        registry.check_connector(ConnectorSettings(protocol="shh"))
    with pytest.raises(ConfigError, match=r"config\.key_path: .*gone cannot be read"):
        registry.check_connector(ConnectorSettings(key_path=tmp_path / "gone"))


def test_conflict(install: Install) -> None:
    """A name that two distributions register is refused, naming both; neither is imported."""
    install("nimbus", "raise RuntimeError('imported')")
    install("nimbus", "raise RuntimeError('imported')", distribution="nimbus-fork")
    with pytest.raises(PluginConflict) as caught:
        Registry().provider("nimbus")
    assert caught.value.distributions == ("fleeting-plugin-nimbus 1.2.3", "nimbus-fork 1.2.3")


UNFINISHED = """
from fleeting.abc import Provider
from fleeting.plugin import hookimpl

@hookimpl
def fleeting_provider():
    return Provider()
"""

NAMELESS = """
from fleeting.abc import Provider
from fleeting.plugin import hookimpl

class Nameless(Provider):
    def open(self, config, settings): ...
    async def check(self, config, settings): ...

@hookimpl
def fleeting_provider():
    return Nameless()
"""

BROKEN = {
    "is missing": (None, "ModuleNotFoundError"),
    "does not parse": ("def (", "SyntaxError"),
    "fails": ("raise OSError('no such library')", "OSError: no such library"),
    "fails in several lines": ("raise OSError('no such\\nlibrary')", "OSError: no such library"),
    "exits": ("import sys; sys.exit('no Windows here')", "SystemExit: no Windows here"),
    "has no hook": ("", "registers no provider named 'broken'"),
    "has another name": (PROVIDER.format(name="other"), "registers no provider named 'broken'"),
    "is not a provider": (
        "from fleeting.plugin import hookimpl\n@hookimpl\ndef fleeting_provider(): return 7",
        "registers no provider named 'broken'",
    ),
    "is nameless": (NAMELESS, "registers no provider named 'broken'"),
    "is unfinished": (UNFINISHED, "TypeError"),
    "has a wrong hook": (
        "from fleeting.plugin import hookimpl\n@hookimpl\ndef fleeting_provider(extra): ...",
        "PluginValidationError",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_plugin(install: Install, how: str) -> None:
    """A broken plugin is reported in one line with its distribution; others still work."""
    source, reason = BROKEN[how]
    install("broken", source)
    install("nimbus", PROVIDER.format(name="nimbus"))
    registry = Registry()
    with pytest.raises(PluginBroken) as caught:
        registry.provider("broken")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.distribution == "fleeting-plugin-broken"
    assert registry.provider("nimbus").name == "nimbus"


def test_metadata_is_read_as_the_standard_library_reads_it(install: Install) -> None:
    """Every entry point of every group is found, with the same names and versions."""
    install("mine", "")
    install("spaced", "", group=" fleeting ")  # To the library, that is another group.
    points = importlib.metadata.entry_points()
    assert points.groups
    for group in points.groups:
        assert set(entry_points(group)) == {
            PluginEntry(point.name, point.dist.name, point.dist.version)
            for point in points.select(group=group)
            if point.dist is not None
        }


def test_first_distribution_on_the_path_hides_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two versions of a distribution, only the one that Python imports counts."""
    for folder, version in (("first", "2.0"), ("second", "1.0")):
        metadata = tmp_path / folder / f"Some.Plugin-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Name: Some.Plugin\nVersion: {version}\n\nText")
        (metadata / "entry_points.txt").write_text(
            "[other]\nx = y\n[fleeting]\n# none = nothing\nsome = some:module [extra]\n"
        )
    folders = ["", str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "missing")]
    monkeypatch.setattr(sys, "path", folders)
    assert entry_points("fleeting") == [PluginEntry("some", "Some.Plugin", "2.0")]
    assert entry_points("nothing") == []


def test_archives_on_the_path_are_left_to_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution that is installed as an archive is found too."""
    archive = tmp_path / "plugin.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped-1.0.dist-info/METADATA", "Name: zipped\nVersion: 1.0\n")
        file.writestr("zipped-1.0.dist-info/entry_points.txt", "[fleeting]\nzipped = zipped\n")
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert entry_points("fleeting") == [PluginEntry("zipped", "zipped", "1.0")]


def test_a_reference_can_have_a_version(install: Install) -> None:
    """The installed version is found in GitLab's notation, and another one is refused."""
    install("nimbus", PROVIDER.format(name="nimbus"))
    registry = Registry()
    for reference in ("nimbus:1", "nimbus:1.2", "nimbus:latest", "example.org/x/nimbus:1.2.3"):
        assert registry.provider(reference).name == "nimbus"
    with pytest.raises(PluginMismatch, match=r"1\.2\.3, but 'nimbus:2'.*--upgrade nimbus:2"):
        registry.provider("nimbus:2")
