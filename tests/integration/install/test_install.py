"""Real installers change fresh environments, with wheels from an index on loopback."""

from __future__ import annotations

import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from install_world import uv
from made_up_plugins import make_project, make_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from install_world import World
    from made_up_plugins import Index


def test_install_upgrade_uninstall(world: World, index: Index) -> None:
    """A plugin is installed in the requested version, upgraded, and removed."""
    place = f"--index-url={index.url}"
    told = world.run("install", place, "good:1").stdout
    assert told == "installed good 1.5.0 (fleeting-plugin-good)\n"
    assert world.plugins() == {"good": "1.5.0"}
    world.run("install", place, "--upgrade", "good")
    assert world.plugins() == {"good": "2.0.0"}
    assert world.run("uninstall", "good", "--yes").stdout.startswith("removed good 2.0.0")
    assert world.plugins() == {}


@pytest.mark.long
def test_requirements_of_a_plugin(world: World, index: Index) -> None:
    """The packages that a plugin requires are installed, and named when the plugin is removed."""
    told = world.run("install", f"--index-url={index.url}", "good", "needy").stdout
    assert told.splitlines() == [
        "installed good 2.0.0 (fleeting-plugin-good)",
        "installed needy 1.0.0 (fleeting-plugin-needy)",
        "also installed: made-up-helper",
    ]
    left = world.run("uninstall", "needy", "--yes").stdout
    assert left.endswith("stay installed: made-up-helper\n")


@pytest.mark.long
def test_dry_run(world: World, index: Index, tmp_path: Path) -> None:
    """The printed command changes nothing until an operator runs it as it stands."""
    before = world.snapshot()
    arguments = ["--dry-run", f"--find-links={index.folder}", "--no-index", "good:1", "needy"]
    line = world.run("install", *arguments).stdout.strip()
    assert world.snapshot() == before
    assert shlex.split(line)[-3:] == [
        "fleeting==1.0.0",
        "fleeting-plugin-good==1.*",
        "fleeting-plugin-needy",
    ]
    subprocess.run(["/bin/sh", "-euc", line], env=world.environ, check=True, cwd=tmp_path)
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}
    assert index.requests == []


@pytest.mark.long
def test_configured_plugins(world: World, index: Index) -> None:
    """Without names, the plugins that the config file refers to are installed."""
    (world.home / "config.toml").write_text(
        '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "registry.example/x/good:1"\n'
        '[[runners]]\nname = "b"\n[runners.autoscaler]\nplugin = "local"\n'
    )
    completed = world.run("install", f"--index-url={index.url}")
    assert completed.stdout == "installed good 1.5.0 (fleeting-plugin-good)\n"
    assert "local 1.0.0 (fleeting) is already installed\n" in completed.stderr


@pytest.mark.long
def test_plugin_that_does_not_work(world: World, index: Index) -> None:
    """A package without the requested plugin is removed, and the old version comes back."""
    make_wheel(
        index.folder, "fleeting-plugin-other", plugin="different", requires=["made-up-helper"]
    )
    more = {"fleeting_plugin_good/__init__.py": "raise RuntimeError('broken')"}
    make_wheel(index.folder, "fleeting-plugin-good", "3.0.0", more=more)
    place = f"--index-url={index.url}"
    before = world.snapshot()
    told = world.run("install", place, "other", code=1).stderr
    assert told.endswith(
        "error: fleeting-plugin-other does not register 'other', but different; "
        "fleeting-plugin-other, made-up-helper were removed again; "
        "all packages have the versions that they had before\n"
    )
    assert world.snapshot() == before
    world.run("install", place, "good:1.0")
    told = world.run("install", place, "--upgrade", "good", code=1).stderr
    assert "broken" in told.splitlines()[-1]
    assert told.endswith("; all packages have the versions that they had before\n")
    assert world.plugins() == {"good": "1.0.0"}


def test_broken_build_of_the_same_version(world: World, tmp_path: Path) -> None:
    """The earlier build comes back from its folder; if that folder has a new one, this is said."""
    name = "fleeting-plugin-mine"
    good, broken = (make_project(tmp_path / folder, name) for folder in ("good", "broken"))
    more = {"fleeting_plugin_mine/__init__.py": "raise RuntimeError('broken')"}
    make_wheel(broken / "built", name, more=more)
    world.run("install", "--no-index", good)
    module = world.site / "fleeting_plugin_mine/__init__.py"
    text = module.read_text()
    told = world.run("install", "--no-index", broken, code=1).stderr
    assert told.endswith(
        "RuntimeError: broken; all packages have the versions that they had before\n"
    )
    assert module.read_text() == text
    make_project(good, name)  # uv looks at the time of pyproject.toml.
    make_wheel(good / "built", name, more=more)
    told = world.run("install", "--no-index", good, code=1).stderr
    assert (
        f"RuntimeError: broken; another build of {name} 1.0.0 is installed now (the earlier one "
        f"comes back only if {good} has it); to undo this, run `"
    ) in told
    assert told.endswith(f" --force-reinstall --no-deps {good}`\n")


@pytest.mark.long
def test_installer_that_fails(world: World, index: Index) -> None:
    """A name that does not exist, a conflict and a dead index end with the installer's words."""
    make_wheel(index.folder, "fleeting-plugin-ancient", requires=["click<2"])
    before = world.snapshot()
    for arguments, words in {
        (f"--index-url={index.url}", "awz"): "did you mean aws instead of awz?",
        (f"--index-url={index.url}", "ancient"): "click",
        ("--index-url=http://127.0.0.1:9/simple", "good"): "had before",
    }.items():
        told = world.run("install", *arguments, code=3).stderr
        assert f"error: {world.kind} failed, see above; all packages" in told
        assert words in told
        assert world.snapshot() == before


@pytest.mark.long
def test_interruption(world: World, index: Index) -> None:
    """A signal ends the installer first; then the command says what is installed."""
    before = world.snapshot()
    for number in (signal.SIGINT, signal.SIGTERM):
        index.switches.hold.clear()
        index.switches.asked.clear()
        process = world.start("install", f"--index-url={index.url}", "good")
        assert index.switches.asked.wait(60)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        *_, state, end = filter(None, told.splitlines())
        assert state == (
            "all packages have the versions that they had before; to repeat the command, run "
            f"`fleeting install --index-url={index.url} good`"
        )
        assert (end, process.returncode) == ("interrupted", 130)
        index.switches.hold.set()
        assert world.snapshot() == before


@pytest.mark.long
def test_paths_and_urls(world: World, index: Index, tmp_path: Path) -> None:
    """A project, a wheel and a URL are installed as they are."""
    project = make_project(tmp_path / "fleeting-plugin-mine", "fleeting-plugin-mine")
    told = world.run("install", "--no-index", project).stdout
    assert told == "installed mine 1.0.0 (fleeting-plugin-mine)\n"
    wheel = make_wheel(tmp_path / "wheels", "fleeting-plugin-mine", "1.1.0")
    world.run("install", "--no-index", wheel)
    name = "fleeting_plugin_good-1.0.0-py3-none-any.whl"
    world.run("install", "--no-index", f"{index.host}/files/{name}")
    assert world.plugins() == {"mine": "1.1.0", "good": "1.0.0"}


@pytest.mark.long
def test_private_index(world: World, index: Index) -> None:
    """The installer finds the password that `fleeting login` stored, and nothing prints it."""
    index.switches.credentials = ("ci", "hunter2")
    make_keyring(world)
    place = f"--index-url={index.url.replace('//', '//ci@')}"
    world.run("install", place, "good", code=3)
    login = ["login", index.url, "--username", "ci", "--password-stdin"]
    world.run(*login, text="hunter2\n")
    completed = world.run("install", place, "good")
    assert world.plugins() == {"good": "2.0.0"}
    world.run("logout", index.url, "--username", "ci")
    world.run("install", place, "needy", code=3)
    with_password = f"--index-url={index.url.replace('//', '//ci:hunter2@')}"
    shown = world.run("install", with_password, "needy")
    for output in (completed, shown):
        assert "hunter2" not in output.stdout + output.stderr


def make_keyring(world: World) -> None:
    """Install a keyring that keeps passwords in a file, as a module and as a command."""
    (world.site / "keyring.py").write_text(
        "import json, pathlib, sys, types\n"
        f"PATH = pathlib.Path({str(world.home / 'passwords')!r})\n"
        "def _all(): return json.loads(PATH.read_text()) if PATH.exists() else {}\n"
        "def get_password(service, name): return _all().get(f'{service} {name}')\n"
        "def get_credential(service, name):\n"
        "    password = get_password(service, name)\n"
        "    found = types.SimpleNamespace(username=name, password=password)\n"
        "    return found if password else None\n"
        "def set_password(service, name, password):\n"
        "    PATH.write_text(json.dumps({**_all(), f'{service} {name}': password}))\n"
        "def delete_password(service, name): PATH.unlink()\n"
        "if __name__ == '__main__':\n"
        "    password = get_password(*sys.argv[-2:])\n"
        "    sys.exit(print(password) if password else 1)\n"
    )
    command = world.prefix / "bin" / "keyring"
    command.write_text(f'#!/bin/sh\nexec {world.prefix}/bin/python -m keyring "$@"\n')
    command.chmod(0o755)


@pytest.mark.long
def test_one_of_two_that_claim_a_name(world: World, index: Index) -> None:
    """If two packages carry a plugin of one name, an operator must name the package to remove."""
    acme = make_wheel(index.folder, "acme-good", plugin="good")
    good = index.folder / "fleeting_plugin_good-1.0.0-py3-none-any.whl"
    python = world.prefix / "bin" / "python"
    uv("pip", "install", "--no-index", "--no-deps", "--python", python, acme, good)
    told = world.run("uninstall", "good", "--yes", code=2).stderr
    assert "carried by acme-good and by fleeting-plugin-good" in told
    world.run("uninstall", "acme-good", "--yes")
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {}
