"""Gives every test a neutral environment, and executes the documentation as tests.

The conventions for the documentation are in `docs/contributing.md`.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest
from hypothesis import HealthCheck, settings
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Document, Example, Region

ROOT = Path(__file__).parent
# Variables that a test must not see: agents, credentials and preferences of a developer's
# shell, and the options of this run, which do not apply to a pytest that a test starts.
PRIVATE = re.compile(
    r"(AWS|AZURE|CLOUDSDK|DOCKER|FLEETING|GOOGLE|TASKSCALER)_|SSH_A"
    r"|(COLUMNS|FORCE_COLOR|LINES|NO_COLOR|PYTEST_ADDOPTS)$"
)
# Pages about features that only Linux has.
ELSEWHERE = () if sys.platform == "linux" else ("docs/plugins/tutorial.md",)
# Pages with a block that takes more than ten seconds.
LONG = ("docs/plugins/testing.md", "docs/plugins/tutorial.md")
# The folder of a page, as its console blocks show it.
SHOWN_FOLDER = "/srv/ci"
VARIES = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\blocal-[0-9a-f]{12}\b", "INSTANCE"),
        (r"\blocal[\w.-]*(/srv/ci|/tmp/[\w-]+)", "GROUP"),
        (r"(command|\w+)/(\d+)/[0-9a-f-]{6,}", r"\1/\2/KEY"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?( UTC)?", "MOMENT"),
        (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "MOMENT"),
        (r"\b(\d+(\.\d+)?(d|h|m|s|ms))+(?![\w\"'])", "TIME"),
        (r"\b\d+(\.\d+)? (s|seconds|ms)\b", "TIME"),
        (r"\bprocess \d+ on [\w.-]+", "process PID on HOST"),
        (r"\b127\.0\.0\.1:\d+\b", "127.0.0.1:PORT"),
        (r" {2,}", "  "),
    )
)
ANY_ORDER = re.compile(r"<!-- any order -->\s*\Z")
FILE_NAME = re.compile(r"<!-- file: (\S+) -->\s*\Z")


def pytest_configure(config: pytest.Config) -> None:
    """Give the tests, and the processes that they start, a neutral environment."""
    # Not a fixture, because the blocks of the documentation have none.
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in [name for name in os.environ if PRIVATE.match(name)]:
        patch.delenv(name)
    # A pytest that a test starts runs in one process; the cores are busy already.
    patch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "0")
    # Images of containers often say not to write bytecode, and the tests start hundreds of Pythons:
    # each of them would compile all that it imports. Git ignores these files.
    patch.setattr(sys, "dont_write_bytecode", False)
    patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    # A parent such as nohup ignores SIGHUP, and a shell cannot trap a signal that was ignored.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # A busy machine draws slowly, which says nothing about a test.
    settings.register_profile(
        "patient", suppress_health_check=[HealthCheck.too_slow], deadline=None
    )
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the blocks of long pages as long proofs, before pytest selects by marker."""
    for item in items:
        if item.path.as_posix().endswith(LONG):
            item.add_marker(pytest.mark.long)


def write_file(example: Example) -> Path | None:
    """Write a block to the file that the comment before it names, and return its path.

    Return None if there is no such comment.

    Blocks of the same name follow one another in the file.
    """
    name = FILE_NAME.search(example.document.text[: example.region.start])
    if name is None:
        return None
    path: Path = example.namespace["folder"] / name[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The parsed text has lost the indentation that all lines share.
    block = example.document.text[example.region.start : example.region.end]
    lines = "".join(block.splitlines(keepends=True)[1:-1])
    path.write_text(f"{path.read_text()}\n{lines}" if path.exists() else lines)
    return path


def run_python(example: Example) -> None:
    """Execute a block, which may await at its top level, in the namespace of its page."""
    if write_file(example):
        return
    code = compile(
        "\n" * example.line + example.parsed,
        example.path,
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    if code.co_flags & inspect.CO_COROUTINE:

        async def main() -> None:
            await eval(code, example.namespace)  # noqa: S307 - our own documentation

        anyio.run(main)
    else:
        exec(code, example.namespace)  # noqa: S102 - our own documentation


def run_console(example: Example) -> None:
    """Run the lines with a prompt as one script, and compare its output with the other lines."""
    lines = example.parsed.splitlines()
    script = "\n".join(line[2:] for line in lines if line.startswith(("$ ", "> ")))
    expected = [line.rstrip() for line in lines if not line.startswith(("$ ", "> "))]
    completed = subprocess.run(
        ["/bin/sh", "-euc", script],
        cwd=example.namespace["folder"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    output = completed.stdout.replace(str(example.namespace["folder"]), SHOWN_FOLDER)
    printed = [line.rstrip() for line in output.splitlines()]
    assert completed.returncode == 0, output
    shown = [settled(line) for line in expected]
    found = [settled(line) for line in printed]
    if ANY_ORDER.search(example.document.text[: example.region.start]):
        found, shown = sorted(found), sorted(shown)
    assert matches(found, shown), "\n".join(("It printed:", *printed))


def settled(line: str) -> str:
    """Return a line without all that differs from run to run, so that pages show real output."""
    for pattern, text in VARIES:
        line = pattern.sub(text, line)
    return line


def matches(printed: list[str], expected: list[str]) -> bool:
    """Return whether output is as shown; `...` stands for any lines, or for any text in one."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def read_toml(example: Example) -> None:
    """Read a block, and write it if it is a file."""
    data = tomllib.loads(example.parsed)
    if "runners" in data:
        check_config(example.parsed, whole=isinstance(data["runners"], list))
    write_file(example)


def write_script(example: Example) -> None:
    """Write a block that is a file, and make it executable."""
    path = write_file(example)
    assert path is not None
    path.chmod(0o755)


def find_scripts(document: Document) -> Iterator[Region]:
    """Find the blocks of `sh` that are files; the others are not executed."""
    for region in CodeBlockParser("sh", write_script)(document):
        if FILE_NAME.search(document.text[: region.start]):
            yield region


def check_config(text: str, *, whole: bool) -> None:
    """Read a block as the operator's file, or as a part of the only runner of one."""
    # Late, because coverage does not measure modules that a conftest imports.
    from fleeting.types import Severity
    from taskscaler.config import examine_config

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.toml")
        path.write_text(text if whole else f"[[runners]]\n{text}")
        _, problems = examine_config(path)
    errors = [str(problem) for problem in problems if problem.severity is Severity.ERROR]
    # A part of a file need not name the plugin.
    elsewhere = () if whole else ("runners[0].autoscaler.plugin:",)
    assert [error for error in errors if not error.startswith(elsewhere)] == []


def open_page(namespace: dict[str, Any]) -> None:
    """Give a page a folder of its own, in which the examples are."""
    folder = Path(tempfile.mkdtemp(prefix="docs-"))
    shutil.copytree(ROOT / "examples", folder / "examples", dirs_exist_ok=True)
    namespace.update(folder=folder, before=Path.cwd())
    os.chdir(folder)


def close_page(namespace: dict[str, Any]) -> None:
    """Leave the folder of a page, kill its processes, and remove it."""
    os.chdir(namespace["before"])
    end_processes(namespace["folder"])
    shutil.rmtree(namespace["folder"])


def end_processes(folder: Path) -> None:
    """Kill the processes that have a folder in their command, and their children."""
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                for one in (*process.children(recursive=True), process):
                    one.kill()


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", run_python),
        CodeBlockParser("console", run_console),
        CodeBlockParser("toml", read_toml),
        find_scripts,
    ],
    patterns=["*.md"],
    excludes=ELSEWHERE,
    setup=open_page,
    teardown=close_page,
).pytest()
