"""One command makes a release: versions, changelog, wheels, commit and tag."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

NEW = "97.5.3"
OWN = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository and return its output."""
    return subprocess.check_output(["git", *OWN, *arguments], cwd=folder, text=True)  # noqa: S607


def release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the release command of a repository."""
    return subprocess.run(
        [sys.executable, ".ci/release.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(
    root: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a repository with one commit, which has the files of this one."""
    folder = tmp_path / "repository"
    for path in files:
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "Test")
        monkeypatch.setenv(f"{name}_EMAIL", "test@example.org")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    return folder


def test_release_is_one_command(repository: Path) -> None:
    """A dry run names what is built and changes nothing; a real one commits and tags it."""
    tried = release(repository, NEW, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert git(repository, "status", "--porcelain", "--ignored") == ""
    assert git(repository, "tag") == ""

    made = release(repository, NEW)
    assert made.returncode == 0, made.stderr
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "log", "-1", "--format=%s") == f"release: {NEW}\n"
    assert git(repository, "describe") == f"v{NEW}\n"
    built = sorted(path.name for path in (repository / "dist").iterdir())
    assert built == made.stdout.splitlines()[:-2] == tried.stdout.splitlines()[:-2]
    projects = [*repository.glob("*/pyproject.toml"), *repository.glob("plugins/*/pyproject.toml")]
    versions = {tomllib.loads(path.read_text())["project"]["version"] for path in projects}
    assert versions == {NEW}
    assert len(built) == 2 * len(projects)
    changes = (repository / "CHANGELOG.md").read_text()
    dated = rf"\n## \[Unreleased\]\n\n## \[{NEW}\] - \d{{4}}-\d\d-\d\d\n\n### "
    assert re.search(dated, changes), "the unreleased changes got no date"


def test_wrong_releases_are_refused(repository: Path) -> None:
    """A bad version, uncommitted changes, an old tag and an empty changelog change nothing."""

    def refusal(*arguments: str) -> str:
        before = git(repository, "status", "--porcelain"), git(repository, "tag")
        refused = release(repository, *arguments)
        assert refused.returncode == 1
        assert (git(repository, "status", "--porcelain"), git(repository, "tag")) == before
        return refused.stderr

    assert "'1.x' is not a version such as 1.1.0" in refusal("1.x")
    git(repository, "tag", f"v{NEW}")
    assert f"the tag v{NEW} exists" in refusal(NEW)
    (repository / "CHANGELOG.md").write_text("# Changes\n\n## [Unreleased]\n\n## [1.0.0]\n\n- x\n")
    assert "uncommitted changes" in refusal("98.0.0")
    git(repository, "commit", "--all", "--quiet", "--message", "empty the changelog")
    assert "no changes under [Unreleased]" in refusal("98.0.0")


def test_dry_run_in_the_middle_of_work(repository: Path) -> None:
    """A dry run also works with uncommitted changes, and sees them."""
    (repository / "fleeting" / "pyproject.toml").write_text("[project]\nname = 'fleeting'\n")
    refused = release(repository, NEW, "--dry-run")
    assert refused.returncode == 1
    assert "pyproject.toml has 0 lines with a version, not 1" in refused.stderr
