"""Which files travel, and that none lands where it must not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from taskscaler.jobs.files import find_uploads, landing_place, outermost, readable, unsafe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with files in it."""
    for name in ("Makefile", "src/a.c", "src/lib/b.c", "src/lib/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("Makefile", ("Makefile",)),
        ("./Makefile", ("Makefile",)),
        ("src", ("src",)),
        ("src/**", ("src",)),
        ("src/*.c", ("src/a.c",)),
        ("src/**/*.c", ("src/a.c", "src/lib/b.c")),
        ("*", ("Makefile", "src")),
    ],
)
def test_uploads_keep_their_paths(folder: Path, pattern: str, expected: tuple[str, ...]) -> None:
    """A folder that matches is taken whole, and every path stays relative to the jobs file."""
    assert find_uploads(folder, [pattern]) == (expected, [])


@pytest.mark.parametrize("pattern", ["missing", "src/*.py"])
def test_upload_that_yields_nothing_is_a_problem(folder: Path, pattern: str) -> None:
    """A path that is not there, and a glob that matches nothing, are told with the folder."""
    found, (problem,) = find_uploads(folder, ["Makefile", pattern])
    assert found == ("Makefile",)
    assert pattern in problem
    assert str(folder.resolve()) in problem


def test_what_lies_in_another_path_is_left_out() -> None:
    """Nothing is copied twice, and a name that only begins alike is no parent."""
    assert outermost({"a/b", "a", "ab/c", "a/b/c"}) == ("a", "ab/c")
    assert outermost({".", "a"}) == (".",)


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "a/../../x", "", " ", "a\0b"])
def test_patterns_that_lead_out_are_refused(pattern: str) -> None:
    """Neither an absolute path nor one with `..` names something below a folder."""
    assert unsafe(pattern)


@pytest.mark.parametrize("pattern", ["x", "a/b", "src/**", "a..b"])
def test_patterns_below_the_folder_are_fine(pattern: str) -> None:
    """Two dots inside a name lead nowhere."""
    assert unsafe(pattern) is None


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "a\0"])
def test_instance_cannot_choose_another_folder(tmp_path: Path, name: str) -> None:
    """A lying instance gets nothing written outside the folder that the user named."""
    assert landing_place(tmp_path / "out", name) is None


def test_instance_cannot_go_through_a_link(tmp_path: Path) -> None:
    """A link that was downloaded before does not lead a later file astray."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to(tmp_path)
    assert landing_place(out, "link/x") is None
    assert landing_place(out, "link") is None


def test_ordinary_download_lands_below_its_folder(tmp_path: Path) -> None:
    """The path in the working directory is kept."""
    assert landing_place(tmp_path, "dist/./a.whl") == tmp_path / "dist" / "a.whl"


def test_what_is_no_file_is_not_uploaded(folder: Path) -> None:
    """A pipe, which might never end, and a link to nothing are told before anything is started."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "nothing")
    found, problems = find_uploads(folder, ["pipe", "link"])
    assert found == ()
    assert ["pipe or a device" in problems[0], "no such file" in problems[1]] == [True, True]
    assert "pipe or a device" in (readable(folder / "pipe") or "")


def test_link_to_itself_leads_nowhere(folder: Path) -> None:
    """A link that an instance sent and that leads to itself is refused as one that leads out."""
    (folder / "loop").symlink_to(folder / "loop")
    assert landing_place(folder, "loop/x") is None
