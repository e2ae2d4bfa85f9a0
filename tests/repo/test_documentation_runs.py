"""The blocks of the documentation are executed, and a wrong one fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FENCE = "`" * 3


def run_page(root: Path, folder: Path, *blocks: str) -> subprocess.CompletedProcess[str]:
    """Run a page of these blocks as the repository would; `~~~` stands for a fence."""
    (folder / "examples").mkdir()
    shutil.copy(root / "conftest.py", folder)
    page = folder / "page.md"
    page.write_text("\n".join(block.replace("~~~", FENCE) for block in blocks))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "page.md"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_wrong_blocks_fail(root: Path, tmp_path: Path) -> None:
    """A block that raises, exits, prints something else or cannot be read fails the tests."""
    wrong = (
        "~~~python\nassert 1 == 2\n~~~\n",
        "~~~python\nimport anyio\nawait anyio.sleep(0)\nraise ValueError\n~~~\n",
        "~~~console\n$ false\n~~~\n",
        "~~~console\n$ echo one; echo two\none\n~~~\n",
        "~~~console\n$ echo one\none\n...\ntwo\n~~~\n",
        "~~~toml\nkey = \n~~~\n",
    )
    completed = run_page(root, tmp_path, *wrong)
    assert completed.returncode == 1, completed.stdout
    assert f"{len(wrong)} failed in" in completed.stdout


def test_right_blocks_pass(root: Path, tmp_path: Path) -> None:
    """Blocks share the names and the folder of their page; a block of `sh` is not run."""
    completed = run_page(
        root,
        tmp_path,
        '<!-- file: a.toml -->\n\n~~~toml\nkey = "value"\n~~~\n',
        "~~~python\nfrom pathlib import Path\nname = 'a.toml'\n~~~\n",
        "~~~python\nassert Path(name).exists()\n~~~\n",
        '~~~console\n$ cat a.toml\nkey = "..."\n~~~\n',
        "~~~console\n$ seq 1 9 |\n> cat\n1\n...\n9\n~~~\n",
        "~~~sh\nexit 1\n~~~\n",
    )
    assert completed.returncode == 0, completed.stdout
    assert "5 passed" in completed.stdout


def test_files_are_written_and_not_executed(root: Path, tmp_path: Path) -> None:
    """Blocks with one name make one file, in order and as they stand; a script can be run."""
    completed = run_page(
        root,
        tmp_path,
        "<!-- file: in/module.py -->\n\n~~~python\nclass A:\n    one = 1\n~~~\n",
        "~~~console\n$ cat in/module.py\nclass A:\n    one = 1\n~~~\n",
        "<!-- file: in/module.py -->\n\n~~~python\n    two = undefined = 2\n~~~\n",
        "<!-- file: run.sh -->\n\n~~~sh\n#!/bin/sh\necho $(($1 + 1))\n~~~\n",
        "~~~console\n$ cat in/module.py; ./run.sh 2\nclass A:\n    one = 1\n\n"
        "    two = undefined = 2\n3\n~~~\n",
    )
    assert completed.returncode == 0, completed.stdout
    assert "5 passed" in completed.stdout


def test_processes_of_a_page_end_with_it(root: Path, tmp_path: Path) -> None:
    """Processes that a failed page leaves in its folder are killed, with their children."""
    script = "<!-- file: loop.sh -->\n\n~~~sh\n#!/bin/sh\nsleep 300 &\necho $! >$1\nwait\n~~~\n"
    note = tmp_path / "pid"
    start = (
        f'$ "$PWD/loop.sh" {note} >/dev/null 2>&1 &\n> while [ ! -s {note} ]; do sleep 0.01; done\n'
        "> false"
    )
    completed = run_page(root, tmp_path, script, f"~~~console\n{start}\n~~~\n")
    assert completed.returncode == 1, completed.stdout
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(note.read_text())).wait(30)


def test_agents_and_credentials_are_hidden(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that the developer's shell sets for other programs do not reach a test."""
    for name in ("SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "NO_COLOR"):
        monkeypatch.setenv(name, "x")
    names = "{'SSH_AUTH_SOCK', 'AWS_SECRET_ACCESS_KEY', 'NO_COLOR'}"
    seen = f"~~~python\nimport os\nassert {names} & set(os.environ) == set()\n~~~\n"
    home = "~~~python\nassert 'HOME' in os.environ\n~~~\n"
    completed = run_page(root, tmp_path, seen, home)
    assert completed.returncode == 0, completed.stdout
