"""`fleeting list` with plugins that work, and that are missing, broken or in conflict."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting._metadata import PluginEntry
from fleeting._plugin_report import PluginReport
from fleeting._references import parse_reference
from fleeting._verification import _ImportProcess, _reason, verify_plugins
from fleeting.cli.list import Needed, assess
from plugin_folder import PROVIDER, PluginFolder

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTOR = """
from fleeting.plugin import hookimpl
from fleeting.testing import FakeConnector

@hookimpl
def fleeting_connector():
    return FakeConnector()
"""


@pytest.fixture
def plugins(tmp_path: Path) -> PluginFolder:
    """Return a folder for the plugins of a test."""
    return PluginFolder(tmp_path / "plugins")


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a config.toml with a runner for each plugin."""

    def write(*references: str) -> Path:
        path = tmp_path / "config.toml"
        text = "".join(
            f'[[runners]]\nname = "{number}"\n[runners.autoscaler]\nplugin = "{reference}"\n'
            for number, reference in enumerate(references)
        )
        path.write_text(text)
        return path

    return write


def test_providers_come_before_connectors(plugins: PluginFolder) -> None:
    """Both kinds of plugins are listed without importing them."""
    plugins.add("zebra", "raise SystemExit('imported')")
    plugins.add("ape", "raise SystemExit('imported')", group="fleeting.connectors")
    completed = plugins.run("list")
    assert completed.returncode == 0
    lines = [line.split() for line in completed.stdout.splitlines()]
    assert lines[0] == ["NAME", "KIND", "VERSION", "DISTRIBUTION"]
    assert ["zebra", "provider", "1.2.3", "fleeting-plugin-zebra"] in lines
    assert lines.index(["ape", "connector", "1.2.3", "fleeting-plugin-ape"]) > lines.index(
        ["zebra", "provider", "1.2.3", "fleeting-plugin-zebra"]
    )


def test_missing_plugin_is_listed_with_its_install_command(
    plugins: PluginFolder, config: Callable[..., Path]
) -> None:
    """A plugin that the file needs and that is not installed is listed, with exit code 1."""
    path = config("local", "nimbus:1")
    completed = plugins.run("list", "-c", path)
    assert completed.returncode == 1
    assert ["nimbus", "provider", "-", "-", "missing"] in [
        line.split() for line in completed.stdout.splitlines()
    ]
    assert completed.stderr == (
        f"error: {path} needs plugin nimbus:1, which is not installed; "
        "run `fleeting install nimbus:1`\n"
    )
    row = plugins.rows("--config", path)["nimbus"]
    assert (row["status"], row["version"]) == ("missing", "")
    assert "fleeting install nimbus:1" in row["problem"]


def test_file_whose_plugins_are_installed(
    plugins: PluginFolder, config: Callable[..., Path]
) -> None:
    """If every plugin of the file is installed in the right version, the exit code is 0."""
    plugins.add("nimbus", "raise SystemExit('imported')", version="1.9.0")
    path = config("local", "nimbus:1", "registry.example.org/x/nimbus:latest")
    completed = plugins.run("list", "-c", path)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert plugins.rows("-c", path)["nimbus"]["status"] == "installed"


def test_wrong_version_is_a_problem(plugins: PluginFolder, config: Callable[..., Path]) -> None:
    """A plugin in another version than the file needs is a problem, with the install command."""
    plugins.add("nimbus", version="2.0.0")
    completed = plugins.run("list", "-c", config("nimbus:1"))
    assert completed.returncode == 1
    assert "fleeting-plugin-nimbus 2.0.0 is installed" in completed.stderr
    assert "`fleeting install nimbus:1`" in completed.stderr
    assert "wrong version" in completed.stdout


def test_conflict_is_shown_without_a_file(plugins: PluginFolder) -> None:
    """Two distributions with the same plugin name are a conflict, with exit code 1."""
    plugins.add("nimbus")
    plugins.add("nimbus", distribution="other-nimbus")
    for words in (["list"], ["list", "--verify"]):
        completed = plugins.run(*words)
        assert completed.returncode == 1
        assert completed.stderr.count("\n") == 1
        assert "fleeting-plugin-nimbus 1.2.3 and by other-nimbus 1.2.3" in completed.stderr
        shown = [line for line in completed.stdout.splitlines() if line.startswith("nimbus")]
        assert [line.split()[4] for line in shown] == ["conflict", "conflict"]


def test_invalid_config_file(
    plugins: PluginFolder, config: Callable[..., Path], tmp_path: Path
) -> None:
    """An invalid file is reported with the key, with exit code 2."""
    for name, reason in (("", "plugin: no plugin is named"), ("a b", "plugin: 'a b' names no")):
        completed = plugins.run("list", "-c", config(name))
        assert completed.returncode == 2
        assert f"runners[0].autoscaler.{reason}" in completed.stderr
    completed = plugins.run("list", "-c", tmp_path / "none.toml")
    assert completed.returncode == 2
    assert "none.toml: the file does not exist" in completed.stderr


def test_each_reference_is_assessed_once() -> None:
    """A plugin that is needed in two versions has one row and one problem."""
    entry = PluginEntry("nimbus", "fleeting-plugin-nimbus", "1.2.3")
    needed = [Needed(parse_reference(text), "f") for text in ("nimbus:1", "nimbus:2", "cirrus")]
    rows = assess([("provider", entry)], needed)
    assert [(row.entry.name, row.status) for row in rows] == [
        ("cirrus", "missing"),
        ("nimbus", "wrong version"),
    ]
    assert "needs plugin nimbus:2" in rows[1].problem
    # A connector of that name does not count.
    (row, other) = assess([("connector", entry)], needed[:1])
    assert (row.status, other.status) == ("missing", "installed")


def test_verify_shows_capabilities_and_keys(plugins: PluginFolder) -> None:
    """A plugin that can be imported is ok, with its capabilities, keys and import time."""
    plugins.add("nimbus")
    plugins.add("fake", CONNECTOR, group="fleeting.connectors")
    completed = plugins.run("list", "--verify")
    assert (completed.returncode, completed.stderr) == (0, "")
    (line,) = [line for line in completed.stdout.splitlines() if line.startswith("nimbus")]
    assert "ok" in line.split()
    assert line.endswith("suspend, watch  id, max_size, boot_updates")
    rows = plugins.rows("--verify")
    assert rows["nimbus"]["capabilities"] == ["suspend", "watch"]
    assert rows["nimbus"]["keys"] == ["id", "max_size", "boot_updates"]
    assert 0 < rows["nimbus"]["import_seconds"] < 60
    assert rows["fake"]["status"] == "ok"
    assert rows["local"]["status"] == "ok"


CONFIG = """
import msgspec
from fleeting.plugin import hookimpl
from fleeting.testing import FakeProvider

class Config(msgspec.Struct, {options}):
    key: int = 1

class Provider(FakeProvider):
    name = "broken"
    config_type = {config_type}
    capabilities = {capabilities}

@hookimpl
def fleeting_provider():
    return Provider()
"""
STRICT = {"options": "frozen=True, forbid_unknown_fields=True", "capabilities": "frozenset()"}
BROKEN = {
    "raises": ("raise OSError('no such\\nlibrary')", "OSError: no such library"),
    "wants to exit": ("raise SystemExit(7)", "SystemExit: 7"),
    "exits": (
        "import os, sys; print('lost\\nlibcloud.so', file=sys.stderr, flush=True); os._exit(3)",
        "exit code 3: libcloud.so",
    ),
    "exits well": ("import os; os._exit(0)", "its import ended the process with exit code 0;"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "its import crashed with SIGSEGV"),
    "colours": ("raise OSError('\\x1b[31mred\\x07')", "OSError: \\x1b[31mred\\x07;"),
    "has another name": (PROVIDER.format(name="other"), "registers no provider named 'broken'"),
    "has a dictionary": (
        CONFIG.format(config_type="dict", **STRICT),
        "its config_type is not a msgspec.Struct with frozen=True",
    ),
    "takes any key": (
        CONFIG.format(config_type="Config", options="frozen=True", capabilities="frozenset()"),
        "lacks forbid_unknown_fields=True",
    ),
    "can fly": (
        CONFIG.format(config_type="Config", **{**STRICT, "capabilities": "frozenset({'fly'})"}),
        "its capabilities are not a frozenset of fleeting.types.Capability",
    ),
    "has a default that fails": (
        CONFIG.format(config_type="Config", **STRICT).replace(
            "int = 1", "int = msgspec.field(default_factory=lambda: 1 // 0)"
        ),
        "its config_type cannot be described (ZeroDivisionError",
    ),
}


def test_verify_reports_broken_plugins(plugins: PluginFolder) -> None:
    """A broken plugin is one message, and does not affect the other plugins."""
    for number, (source, _) in enumerate(BROKEN.values()):
        named = source.replace('"broken"', f'"broken{number}"')
        plugins.add(f"broken{number}", named.replace("'broken'", f"'broken{number}'"))
    plugins.add("nimbus")
    completed = plugins.run("list", "--verify")
    assert completed.returncode == 1
    problems = completed.stderr.splitlines()
    assert len(problems) == len(BROKEN)
    for number, (how, (_, reason)) in enumerate(BROKEN.items()):
        (problem,) = [line for line in problems if f"'broken{number}' of" in line]
        assert f"fleeting-plugin-broken{number} is broken: " in problem
        assert reason.replace("'broken'", f"'broken{number}'") in problem, how
        assert problem.isprintable()
    words = {line.split()[0]: line.split() for line in completed.stdout.splitlines()}
    assert words["broken0"][4:] == ["broken", "-", "-", "-"]
    assert words["nimbus"][4] == "ok"


def test_verify_as_json(plugins: PluginFolder) -> None:
    """The JSON contains the problem, and the exit code is the same."""
    plugins.add("nimbus", "import missing_cloud")
    completed = plugins.run("list", "--verify", "--json")
    assert (completed.returncode, completed.stderr) == (1, "")
    (row,) = [row for row in json.loads(completed.stdout) if row["name"] == "nimbus"]
    assert row["status"] == "broken"
    assert "No module named 'missing_cloud'" in row["problem"]


def test_verify_imports_nothing_of_the_working_directory(
    plugins: PluginFolder, tmp_path: Path
) -> None:
    """A file in the working directory is not mistaken for a library."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "msgspec.py").write_text("raise SystemExit('not this one')")
    assert plugins.run("list", "--verify", folder=folder).returncode == 0


HANG = """
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "1000"])
file = pathlib.Path({path!r})
file.with_suffix(".new").write_text(f"{{os.getpid()}} {{child.pid}}")
file.with_suffix(".new").rename(file)
time.sleep(1000)
"""


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks at processes in /proc")
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_cancelled_verification_leaves_no_process(
    plugins: PluginFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation kills the process and the processes that its plugin has started."""
    marker = tmp_path / "pids"
    plugins.add("nimbus", HANG.format(path=str(marker)))
    monkeypatch.setenv("PYTHONPATH", str(plugins.path))
    entry = PluginEntry("nimbus", "fleeting-plugin-nimbus", "1.2.3")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(verify_plugins, [("provider", entry)])
        with anyio.fail_after(60):
            while not marker.exists():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(60):
        while any(map(_is_running, map(int, marker.read_text().split()))):
            await anyio.sleep(0.01)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_hanging_import_times_out(
    plugins: PluginFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that takes longer than the deadline is killed, and its plugin is broken."""
    plugins.add("nimbus", HANG.format(path=str(tmp_path / "pids")))
    monkeypatch.setenv("PYTHONPATH", str(plugins.path))
    entry = PluginEntry("nimbus", "fleeting-plugin-nimbus", "1.2.3")
    plugin = ("provider", entry)
    done: list[int] = []
    reports = await verify_plugins(
        [plugin], deadline=timedelta(milliseconds=300), on_verified=done.append
    )
    assert "its import took longer than 0.3 s" in reports[plugin].problem
    assert done == [1]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_process_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no process can be started, the error is raised once for all plugins."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    entries = [PluginEntry(name, f"fleeting-plugin-{name}", "1.2.3") for name in ("a", "b")]
    with pytest.raises(FileNotFoundError):
        await verify_plugins([("provider", entry) for entry in entries])


CROWD = """
import pathlib, time
folder = pathlib.Path({path!r})
started, running = folder / "started", folder / "running"
(running / __name__).touch()
(started / __name__).touch()
# The first four wait for each other, so that they run at the same time.
while len(list(started.iterdir())) < 4:
    time.sleep(0.01)
(folder / f"seen-{{len(list(running.iterdir()))}}").touch()
(running / __name__).unlink()
"""


def test_four_plugins_are_verified_at_the_same_time(plugins: PluginFolder, tmp_path: Path) -> None:
    """At most four processes run at once."""
    for name in ("started", "running"):
        (tmp_path / name).mkdir()
    for number in range(9):
        name = f"p{number}"
        plugins.add(name, CROWD.format(path=str(tmp_path)) + PROVIDER.format(name=name))
    completed = plugins.run("list", "--verify")
    assert completed.returncode == 0, completed.stderr
    assert len(list((tmp_path / "started").iterdir())) == 9
    seen = sorted(int(path.name.partition("-")[2]) for path in tmp_path.glob("seen-*"))
    assert seen[-1] <= 4


@pytest.mark.parametrize(
    ("code", "stderr", "report", "reason"),
    [
        (0, b"", PluginReport(), ""),
        (0, b"a warning", PluginReport(), ""),
        (0, b"", None, "exit code 0"),
        (1, b"Traceback\n  x\nOSError: gone.\n", None, "exit code 1: OSError: gone"),
        (1, b"", PluginReport(), "exit code 1"),
        (-6, b"", None, "crashed with SIGABRT"),
        (-64, b"", None, "crashed with SIG"),
        (-99, b"", None, "crashed with signal 99"),
        (None, b"", None, "took longer than 2 s"),
        (None, b"", PluginReport(), "does not exit, perhaps because it starts a thread"),
    ],
)
def test_problem_by_the_end_of_the_process(
    code: int | None, stderr: bytes, report: PluginReport | None, reason: str
) -> None:
    """The problem of a plugin follows from how its process ended."""
    problem = _reason(_ImportProcess(code, stderr), report, timedelta(seconds=2))
    assert problem == reason if not reason else reason in problem
