"""Plugins come from an index, in an environment with pip and in one with uv alone."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from install_world import World
    from made_up_plugins import Index


def test_install_upgrade_downgrade_uninstall(world: World, index: Index) -> None:
    """A plugin is installed in the version that was asked for, changed to others, and removed."""
    place = f"--index-url={index.url}"
    told = world.run("install", place, "good:1").stdout
    assert told == "installed good 1.5.0 (fleeting-plugin-good)\n"
    assert world.plugins() == {"good": "1.5.0"}

    asked = len(index.requests)
    assert "good 1.5.0 is installed already" in world.run("install", place, "good").stderr
    assert len(index.requests) == asked, "what is there needs no request"

    world.run("install", place, "--upgrade", "good")
    assert world.plugins() == {"good": "2.0.0"}
    world.run("install", place, "good:1.0")
    assert world.plugins() == {"good": "1.0.0"}
    world.run("install", place, "fleeting-plugin-good>=1.2,<2")
    assert world.plugins() == {"good": "1.5.0"}

    assert "\nerror: nobody is there to be asked" in world.run("uninstall", "good", code=2).stderr
    assert world.run("uninstall", "good", code=1, text="n\n").stdout == ""
    assert world.run("uninstall", "good", text="y\n").stdout.startswith("removed good")
    assert world.plugins() == {}


def test_installed_plugin_works(world: World, index: Index) -> None:
    """What was installed is a provider that the registry gives, with what it needs beside it."""
    told = world.run("install", f"--index-url={index.url}", "good", "needy").stdout
    assert told.splitlines() == [
        "installed good 2.0.0 (fleeting-plugin-good)",
        "installed needy 1.0.0 (fleeting-plugin-needy)",
        "and what they need: made-up-helper 1.0.0",
    ]
    code = "from fleeting._registry import Registry; print(Registry().provider('needy:1').name)"
    python = [str(world.prefix / "bin" / "python"), "-c", code]
    assert subprocess.check_output(python, text=True) == "needy\n"
    left = world.run("uninstall", "needy", "--yes").stdout
    assert left.endswith("still installed, though no other package needs it: made-up-helper\n")


def test_dry_run_prints_what_does_the_same(world: World, index: Index, tmp_path: Path) -> None:
    """The command that is printed changes nothing, until somebody runs it as it stands."""
    before = world.snapshot()
    arguments = ["--dry-run", f"--index-url={index.url}", "good:1", "needy"]
    line = world.run("install", *arguments).stdout.strip()
    assert world.snapshot() == before
    assert shlex.split(line)[-3:] == [
        "fleeting==1.0.0",
        "fleeting-plugin-good==1.5.0",
        "fleeting-plugin-needy==1.0.0",
    ]
    subprocess.run(["/bin/sh", "-euc", line], env=world.environ, check=True, cwd=tmp_path)
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}
    assert world.run("install", *arguments).stdout.startswith("# nothing to do")


def test_configured_plugins_are_installed(world: World, index: Index) -> None:
    """Without names it is all that the config file refers to; a file without any is warned of."""
    config = world.home / "config.toml"
    config.write_text(
        '[[runners]]\nname = "a"\n[runners.autoscaler]\nplugin = "registry.example/x/good:1"\n'
        '[[runners]]\nname = "b"\n[runners.autoscaler]\nplugin = "local"\n'
    )
    place = f"--index-url={index.url}"
    completed = world.run("install", place)
    assert completed.stdout == "installed good 1.5.0 (fleeting-plugin-good)\n"
    assert completed.stderr == "local 1.0.0 is built in\n"
    other = world.home / "other.toml"
    other.write_text("concurrent = 1\n")
    warned = world.run("install", place, "-c", other).stderr
    assert warned == f"warning: {other} refers to no plugin; nothing was installed\n"
    assert world.run("install", place, "-c", world.home / "gone.toml", code=2).stderr


def test_private_index(world: World, index: Index) -> None:
    """An index that wants credentials gets those of `fleeting login`, which nobody else sees."""
    secret = 'p@ss "w\\ord%2F#'  # noqa: S105 - of an index that does not exist
    index.switches.credentials = ("ci", secret)
    place = f"--index-url={index.url}"
    refused = world.run("install", place, "good", code=3).stderr
    assert f"`fleeting login {index.host}`" in refused

    login = ["login", index.url, "--username", "ci", "--password-stdin"]
    assert "refused these credentials" in world.run(*login, code=3, text="wrong\n").stderr
    told = world.run(*login, text=f"{secret}\n").stdout
    kept = world.home / ".config/fleeting/credentials"
    assert str(kept) in told
    assert kept.stat().st_mode & 0o777 == 0o600

    index.switches.hold.clear()
    process = world.start("install", "-v", place, "good")
    assert index.switches.asked.wait(60)
    lines = command_lines()
    index.switches.hold.set()
    output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output
    assert index.url in lines
    assert secret not in lines
    assert secret not in output
    assert world.plugins() == {"good": "2.0.0"}

    assert world.run("logout", index.url).stdout.startswith("forgot")
    assert "wants credentials" in world.run("install", place, "needy", code=3).stderr
    world.run("logout", index.url, code=1)


def command_lines() -> str:
    """Return the command lines of everything that runs, which everybody can read."""
    return subprocess.check_output(["/bin/ps", "-eww", "-o", "args="], text=True)


def test_credentials_in_an_address_stay_secret(world: World, index: Index) -> None:
    """Those that somebody wrote into a URL are handed on, and appear in nothing that is printed."""
    index.switches.credentials = ("ci", "hunter2")
    place = f"--index-url={index.url.replace('//', '//ci:hunter2@')}"
    line = world.run("install", "--dry-run", place, "good").stdout
    assert f"--index-url={index.url} " in line
    assert "installed good 2.0.0" in world.run("install", "-v", place, "good").stdout
    output = world.run("install", "-v", place, "none", code=1)
    assert "hunter2" not in line + output.stdout + output.stderr


def test_progress_is_shown_on_a_terminal(world: World, index: Index) -> None:
    """Whoever watches sees what the installer says; a log gets the result alone."""
    ours, theirs = pty.openpty()
    command = [str(world.command), "install", f"--index-url={index.url}", "needy"]
    with subprocess.Popen(
        command, env=world.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):
            while chunk := os.read(ours, 65536):
                seen += chunk
        assert process.wait(60) == 0
    os.close(ours)
    assert b"made-up-helper" in seen
    assert world.run("uninstall", "needy", "--yes").stderr == ""


def test_offline_from_a_folder(world: World, index: Index) -> None:
    """A folder of wheels is enough; no index is asked."""
    options = ["--no-index", f"--find-links={index.folder}"]
    world.run("install", *options, "good:1.0.0", "needy")
    assert world.plugins() == {"good": "1.0.0", "needy": "1.0.0"}
    assert index.requests == []
