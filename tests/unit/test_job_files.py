"""Which files are uploaded, and where downloads may be written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from taskscaler.jobs.paths import (
    check_pattern,
    check_readable,
    check_reported,
    find_uploads,
    outermost,
    resolve_target,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with files in it."""
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
    """A matching directory is uploaded as a whole; paths stay relative to the jobs file."""
    assert find_uploads(folder, [pattern]) == (expected, [])


@pytest.mark.parametrize("pattern", ["missing", "src/*.py"])
def test_upload_pattern_without_a_match_is_a_problem(folder: Path, pattern: str) -> None:
    """A missing path, and a glob that matches nothing, are reported with the directory."""
    found, (problem,) = find_uploads(folder, ["Makefile", pattern])
    assert found == ("Makefile",)
    assert pattern in problem
    assert str(folder.resolve()) in problem


def test_path_inside_another_one_is_left_out() -> None:
    """Nothing is copied twice; a name with the same prefix is not a parent."""
    assert outermost({"a/b", "a", "ab/c", "a/b/c"}) == ("a", "ab/c")
    assert outermost({".", "a"}) == (".",)


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "a/../../x", "", " ", "a\0b"])
def test_patterns_that_leave_the_directory_are_refused(pattern: str) -> None:
    """Absolute paths and paths with `..` are refused."""
    assert check_pattern(pattern)


@pytest.mark.parametrize("pattern", ["x", "a/b", "src/**", "a..b"])
def test_patterns_inside_the_directory_are_accepted(pattern: str) -> None:
    """Two dots within a name are accepted."""
    assert check_pattern(pattern) is None


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "a\0"])
def test_instance_cannot_choose_another_directory(name: str) -> None:
    """A reported path that leads out of the directory is refused."""
    assert check_reported(name) is None


def test_download_keeps_its_path() -> None:
    """The path in the working directory is kept."""
    assert check_reported("dist/./a.whl") == "dist/a.whl"


def test_directory_of_a_download_is_resolved_once(folder: Path) -> None:
    """A link that the user made is followed; a link to itself is an error on every Python."""
    (folder / "link").symlink_to("src")
    (folder / "loop").symlink_to("loop")
    assert resolve_target(folder / "link" / "new") == folder.resolve() / "src" / "new"
    for path in (folder / "loop", folder / "loop" / "x"):
        with pytest.raises(OSError, match="loop"):
            resolve_target(path)


@pytest.mark.parametrize("pattern", ["out", "out/*", "**/key", "file"])
def test_uploads_do_not_follow_links_out_of_the_directory(tmp_path: Path, pattern: str) -> None:
    """A link that leads outside is refused by default, in a glob and by its name."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "key").write_text("secret")
    (folder / "out").symlink_to(outside)
    (folder / "file").symlink_to(outside / "key")
    found, problems = find_uploads(folder, [pattern])
    assert found == ()
    assert all("through a symbolic link" in problem for problem in problems)
    assert problems or pattern == "**/key"
    found, problems = find_uploads(folder, [pattern], follow_links=True)
    assert problems == [] or pattern == "**/key"


def test_uploads_follow_links_within_the_directory(folder: Path) -> None:
    """A link to another file of the directory is followed."""
    (folder / "link").symlink_to("Makefile")
    assert find_uploads(folder, ["link"]) == (("link",), [])


def test_special_file_is_not_uploaded(folder: Path) -> None:
    """A pipe, which might block forever, and a broken link are reported before the start."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "nothing")
    found, problems = find_uploads(folder, ["pipe", "link"])
    assert found == ()
    assert ["not a regular file" in problems[0], "does not exist" in problems[1]] == [True, True]
    assert "not a regular file" in (check_readable(folder / "pipe") or "")
