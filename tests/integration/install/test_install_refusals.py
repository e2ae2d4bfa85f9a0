"""What cannot be installed is refused in one sentence, and the environment is as it was."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from made_up_plugins import make_project, make_wheel

if TYPE_CHECKING:
    from pathlib import Path

    from install_world import World
    from made_up_plugins import Index


def refusal(world: World, *arguments: str | Path, code: int = 1) -> str:
    """Run an installation that must fail, and return the sentence that says why."""
    before = world.snapshot()
    completed = world.run("install", *arguments, code=code)
    assert world.snapshot() == before
    assert completed.stdout == ""
    (line,) = completed.stderr.splitlines()
    return line.removeprefix("error: ")


def test_what_the_index_cannot_give(world: World, index: Index) -> None:
    """A name, a version or a Python that does not exist, and a conflict, are told apart."""
    make_wheel(index.folder, "fleeting-plugin-later", python=">=3.99")
    make_wheel(index.folder, "fleeting-plugin-ancient", requires=["click<2"])
    make_wheel(index.folder, "fleeting-plugin-lonely", requires=["made-up-nothing"])
    place = f"--index-url={index.url}"
    assert refusal(world, place, "god") == (
        "no plugin is to be had as fleeting-plugin-god; did you mean good?"
    )
    assert refusal(world, place, "good:7").startswith("there is no fleeting-plugin-good==7.*;")
    assert "fleeting-plugin-later needs Python >=3.99" in refusal(world, place, "later")
    conflict = refusal(world, place, "good", "ancient")
    assert "click>=8.1.8" in conflict
    assert "click<2" in conflict
    assert refusal(world, place, "lonely").startswith(
        "fleeting-plugin-lonely needs made-up-nothing, which is not to be had"
    )
    assert "is built in" in refusal(world, "local:7")


def test_what_is_no_plugin(world: World, index: Index) -> None:
    """A package without a plugin, or with others than was asked for, is read and not installed."""
    make_wheel(index.folder, "fleeting-plugin-empty", plugin="")
    make_wheel(index.folder, "fleeting-plugin-other", plugin="different")
    make_wheel(index.folder, "acme-good", plugin="good")
    place = f"--index-url={index.url}"
    assert refusal(world, place, "empty").startswith(
        "fleeting-plugin-empty 1.0.0 registers no plugin"
    )
    assert refusal(world, place, "other").startswith(
        "fleeting-plugin-other 1.0.0 registers different, and not 'other'"
    )
    assert refusal(world, "--no-index", "click>=8").startswith("click ")
    world.run("install", place, "acme-good>=1")
    assert refusal(world, place, "fleeting-plugin-good>=1").startswith(
        "fleeting-plugin-good 2.0.0 registers 'good', and so does acme-good"
    )


def test_what_is_broken_on_the_way(world: World, index: Index) -> None:
    """A broken wheel, a download that is cut off, and an index that fails, change nothing."""
    wheel = make_wheel(index.folder, "fleeting-plugin-spoilt")
    data = wheel.read_bytes()
    wheel.write_bytes(data.replace(b"contextlib", b"contextlip"))
    place = f"--index-url={index.url}"
    broken = refusal(world, place, "good", "spoilt")
    assert broken.startswith("the wheel of fleeting-plugin-spoilt is broken")
    make_wheel(index.folder, "fleeting-plugin-late")
    index.switches.cut_off = True
    # An older pip cannot tell a file that is cut off from a broken one.
    cut = refusal(world, place, "late", code=1 if world.kind == "pip" else 3)
    assert "fleeting-plugin-late" in cut
    assert "cut off" in cut
    index.switches.fails = True
    assert "cannot be reached" in refusal(world, place, "good", code=3)


def test_no_network(world: World) -> None:
    """An index where nobody answers is named, with the exit code of a failing network."""
    sentence = refusal(world, "--index-url=http://127.0.0.1:9/simple", "good", code=3)
    assert sentence.startswith("http://127.0.0.1:9/simple")
    assert "the connection was refused" in sentence


def test_hashes(world: World, index: Index) -> None:
    """With --require-hashes only what has the hash that was written down is installed."""
    wheel = index.folder / "fleeting_plugin_good-1.5.0-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file = world.home / "plugins.txt"
    arguments = [f"--index-url={index.url}", "--require-hashes", "-r", str(file)]
    file.write_text(f"fleeting-plugin-good==1.5.0 --hash=sha256:{'0' * 64}\n")
    assert refusal(world, *arguments).startswith("what was sent for fleeting-plugin-good does not")
    file.write_text("fleeting-plugin-good==1.5.0\n")
    assert "fleeting-plugin-good has none" in refusal(world, *arguments)
    file.write_text(f"fleeting-plugin-good==1.5.0 --hash=sha256:{digest}\n")
    world.run("install", *arguments)
    assert world.plugins() == {"good": "1.5.0"}
    wheel = make_wheel(index.folder, "click", "7.0", plugin="")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file.write_text(f"click==7.0 --hash=sha256:{digest}\n")
    assert refusal(world, *arguments) == f"{file} names no plugin, so nothing was installed"
    good = index.folder / "fleeting_plugin_good-2.0.0-py3-none-any.whl"
    with file.open("a") as more:
        digest = hashlib.sha256(good.read_bytes()).hexdigest()
        more.write(f"fleeting-plugin-good==2.0.0 --hash=sha256:{digest}\n")
    sentence = refusal(world, *arguments)
    assert sentence.startswith("it does not go together: ")
    assert "click>=8.1.8" in sentence
    assert "needs a file" in refusal(world, "--require-hashes", "good", code=2)


def test_paths_and_urls(world: World, index: Index, tmp_path: Path) -> None:
    """A project, a wheel and a URL are installed as they are; a place without one is named."""
    project = make_project(tmp_path / "fleeting-plugin-mine", "fleeting-plugin-mine")
    told = world.run("install", "--no-index", project).stdout
    assert told == "installed mine 1.0.0 (fleeting-plugin-mine)\n"
    wheel = make_wheel(tmp_path / "wheels", "fleeting-plugin-mine", "1.1.0")
    world.run("install", "--no-index", wheel)
    assert world.plugins() == {"mine": "1.1.0"}
    name = "fleeting_plugin_good-1.0.0-py3-none-any.whl"
    world.run("install", "--no-index", f"{index.host}/files/{name}")
    assert world.plugins() == {"mine": "1.1.0", "good": "1.0.0"}
    assert "there is nothing at ./gone" in refusal(world, "./gone", code=2)
    gone = f"{index.host}/files/fleeting_plugin_gone-1-py3-none-any.whl"
    assert refusal(world, gone) == f"there is nothing at {gone}"


def test_nonsense(world: World) -> None:
    """What names nothing is wrong input."""
    for word in ("--index-url=x", "a b", "good;", "@", "../good/:1"):
        assert refusal(world, "--", word, code=2)
