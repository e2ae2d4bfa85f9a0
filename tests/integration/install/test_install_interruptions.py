"""Nothing is half installed, whatever happens in the middle."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psutil

from made_up_plugins import make_wheel

if TYPE_CHECKING:
    import subprocess

    from install_world import World
    from made_up_plugins import Index


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what a command says until it says these words."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if words in line:
            return read
    raise AssertionError(read)


def test_interrupted_download(world: World, index: Index) -> None:
    """Who interrupts a download, or ends it, finds the environment as it was."""
    before = world.snapshot()
    for number in (signal.SIGINT, signal.SIGTERM):
        index.switches.hold.clear()
        index.switches.asked.clear()
        process = world.start("install", f"--index-url={index.url}", "good")
        assert index.switches.asked.wait(60)
        process.send_signal(number)
        output, told = process.communicate(timeout=60)
        assert (output, told.strip()) == ("", "interrupted")
        assert process.returncode == 130
        index.switches.hold.set()
        assert world.snapshot() == before


def test_installer_that_is_killed(world: World, index: Index) -> None:
    """An installer that the system ends, as for lack of memory, is named by the signal."""
    index.switches.hold.clear()
    process = world.start("install", f"--index-url={index.url}", "good")
    assert index.switches.asked.wait(60)
    for child in psutil.Process(process.pid).children():
        child.kill()
    _, told = process.communicate(timeout=60)
    assert told.startswith("error: the installer was ended by SIGKILL")
    assert process.returncode == 3


def test_two_at_once(world: World, index: Index) -> None:
    """The second of two installations waits for the first, says so, and then does its part."""
    index.switches.hold.clear()
    first = world.start("install", f"--index-url={index.url}", "good:1")
    assert index.switches.asked.wait(60)
    second = world.start("install", f"--index-url={index.url}", "good:1", "needy")
    read_until(second, "waiting for another `fleeting`")
    index.switches.hold.set()
    assert first.communicate(timeout=60) == ("installed good 1.5.0 (fleeting-plugin-good)\n", "")
    output, _ = second.communicate(timeout=60)
    assert "good" not in output, "the first one had installed it by then"
    assert world.plugins() == {"good": "1.5.0", "needy": "1.0.0"}


def test_failure_in_the_middle(world: World, index: Index) -> None:
    """What an installer had changed before it failed is put back, with what it had removed."""
    place = f"--index-url={index.url}"
    world.run("install", place, "good:1.0")
    make_wheel(index.folder, "fleeting-plugin-zebra", requires=["made-up-helper"])
    # A folder where a file has to be is in nobody's way until the very last moment.
    (world.site / "fleeting_plugin_zebra" / "__init__.py" / "x").mkdir(parents=True)
    before = world.snapshot()
    completed = world.run("install", place, "--upgrade", "good", "zebra", "-v", code=1)
    assert "made-up-helper" in completed.stderr
    assert world.snapshot() == before
    assert world.plugins() == {"good": "1.0.0"}


def test_killed_in_the_middle(world: World, index: Index) -> None:
    """What a killed installation had begun is undone by the next one, once its installer ended."""
    place = f"--index-url={index.url}"
    world.run("install", place, "good:1.0")
    before = world.snapshot()
    # Many files, so that the installer is at work for a while.
    more = {f"fleeting_plugin_large/part{number}.py": "x = 1\n" * 50 for number in range(400)}
    make_wheel(index.folder, "fleeting-plugin-large", more=more)
    process = world.start("install", place, "--upgrade", "good", "large")
    while not any(world.site.glob(".fleeting-install-*/journal.json")):
        assert process.poll() is None
    process.kill()
    process.communicate()
    completed = world.run("install", place, "none", code=1)
    assert "an earlier installation was cut off" in completed.stderr
    assert world.snapshot() == before
    assert world.plugins() == {"good": "1.0.0"}
