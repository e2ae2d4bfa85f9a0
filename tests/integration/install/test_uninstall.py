"""A removal removes what was meant, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from install_world import uv
from made_up_plugins import make_wheel

if TYPE_CHECKING:
    from install_world import World
    from made_up_plugins import Index


def test_other_version_stays(world: World, index: Index) -> None:
    """A version that is not the one installed is not removed; the package's own name will do."""
    world.run("install", f"--index-url={index.url}", "good:1.0")
    told = world.run("uninstall", "good:2", "--yes", code=2).stderr
    assert "(installed: good 1.0.0)" in told
    assert world.plugins() == {"good": "1.0.0"}
    world.run("uninstall", "Fleeting_Plugin.Good", "--yes")
    assert world.plugins() == {}


def test_one_of_two_that_claim_a_name(world: World, index: Index) -> None:
    """Of two packages with a plugin of one name neither is chosen; each can be named itself."""
    acme = make_wheel(index.folder, "acme-good", plugin="good")
    good = index.folder / "fleeting_plugin_good-1.0.0-py3-none-any.whl"
    python = world.prefix / "bin" / "python"
    uv("pip", "install", "--no-index", "--no-deps", "--python", python, acme, good)
    told = world.run("uninstall", "good", "--yes", code=1).stderr
    assert "carried by acme-good and by fleeting-plugin-good" in told
    assert world.run("uninstall", "acme-good", "--yes").stdout == (
        "removed good (acme-good 1.0.0)\n"
    )
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {}


def test_extra_is_no_need(world: World, index: Index) -> None:
    """What another package needs for an extra only, however it writes that, can be removed."""
    make_wheel(
        index.folder, "made-up-extra", plugin="", requires=['fleeting-plugin-good;extra=="x"']
    )
    python = world.prefix / "bin" / "python"
    world.run("install", f"--index-url={index.url}", "good")
    uv("pip", "install", "--no-index", "--python", python, *index.folder.glob("made_up_extra*"))
    world.run("uninstall", "good", "--yes")
    assert world.plugins() == {}
