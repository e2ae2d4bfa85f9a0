"""Makes a release: one version for every distribution, with changelog, wheels, commit and tag.

Usage: uv run python .ci/release.py 1.1.0 [--dry-run]

It writes the version into each `pyproject.toml` and `__init__.py`, dates the unreleased changes in
CHANGELOG.md, builds wheels and source distributions into `dist/`, commits, and tags `v1.1.0`. With
`--dry-run` it works on a copy and changes nothing. It prints the commands that push and upload.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
VERSION_LINE = re.compile(r'^(version|__version__) = "[^"]*"$', re.MULTILINE)
UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class ReleaseError(Exception):
    """The release cannot be made; the message says what to do."""


def projects(root: Path) -> list[Path]:
    """Return the folders of the distributions, as the workspace lists them."""
    workspace = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]
    files = (root.glob(f"{pattern}/pyproject.toml") for pattern in workspace["members"])
    return [path.parent for found in files for path in sorted(found)]


def set_version(project: Path, version: str) -> None:
    """Write the version into the project's own file and into its package.

    Raises:
        ReleaseError: a file does not have one line with a version.
    """
    package = project / "src" / project.name.replace("-", "_") / "__init__.py"
    for path in (project / "pyproject.toml", package):
        text, count = VERSION_LINE.subn(rf'\1 = "{version}"', path.read_text())
        if count != 1:
            raise ReleaseError(f"{path} has {count} lines with a version, not 1")
        path.write_text(text)


def date_changes(changelog: str, version: str, day: dt.date) -> str:
    """Return the changelog with its unreleased changes under the version.

    Raises:
        ReleaseError: there are none, or the version is listed already.
    """
    changes = UNRELEASED.search(changelog)
    if changes is None or not changes[1].strip():
        raise ReleaseError("CHANGELOG.md has no changes under [Unreleased]; describe them first")
    if f"## [{version}]" in changelog:
        raise ReleaseError(f"CHANGELOG.md lists {version} already; choose a later version")
    heading = f"## [Unreleased]\n\n## [{version}] - {day}\n"
    return changelog.replace("## [Unreleased]\n", heading, 1)


def build(project: Path, folder: Path) -> None:
    """Build the wheel and the source distribution of a project, without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.check_output(command, cwd=project, stderr=subprocess.PIPE)


def prepare(root: Path, version: str, day: dt.date) -> list[str]:
    """Change the files, build everything into `dist/` and return the names of what was built.

    Raises:
        ReleaseError: a file is not as expected.
    """
    changelog = root / "CHANGELOG.md"
    changelog.write_text(date_changes(changelog.read_text(), version, day))
    shutil.rmtree(dist := root / "dist", ignore_errors=True)
    for project in projects(root):
        set_version(project, version)
        build(project, dist)
    built = sorted(path.name for path in dist.iterdir())
    wrong = [name for name in built if f"-{version}" not in name]
    if wrong or len(built) != 2 * len(projects(root)):
        raise ReleaseError(f"expected a wheel and a source distribution of each: {built}")
    return built


def git(root: Path, *arguments: str) -> str:
    """Run git and return its output."""
    return subprocess.check_output(["git", *arguments], cwd=root, text=True)


def copy(root: Path, folder: Path) -> Path:
    """Copy the files that git tracks, as they are now."""
    for name in git(root, "ls-files", "-z").split("\0"):
        if name and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    return folder


def release(root: Path, version: str, *, is_dry: bool) -> list[str]:
    """Make the release, or only try it on a copy; return the names of what was built.

    Raises:
        ReleaseError: it cannot be made; nothing is changed then.
    """
    tag = f"v{version}"
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version such as 1.1.0")
    if not is_dry and git(root, "status", "--porcelain"):
        raise ReleaseError("there are uncommitted changes; commit or remove them first")
    if git(root, "tag", "--list", tag):
        raise ReleaseError(f"the tag {tag} exists; choose a later version")
    today = dt.datetime.now(dt.UTC).date()
    # The copy comes first in any case, so that an error leaves no half of a release behind.
    with tempfile.TemporaryDirectory() as folder:
        built = prepare(copy(root, Path(folder)), version, today)
    if not is_dry:
        prepare(root, version, today)
        git(root, "commit", "--all", "--quiet", "--message", f"release: {version}")
        git(root, "tag", "--annotate", tag, "--message", version)
    return built


def main(arguments: list[str]) -> int:
    """Make the release that the arguments ask for; return 1 if it cannot be made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    try:
        built = release(ROOT, options.version, is_dry=options.dry_run)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    done = f"{options.version} {'would be' if options.dry_run else 'is'} committed and tagged."
    print(*built, done, sep="\n")
    print("To publish it: git push --follow-tags && uv publish dist/*")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
