"""The blocks of the documentation are run, and a wrong one fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FENCE = "`" * 3


def run_page(root: Path, folder: Path, *blocks: str) -> subprocess.CompletedProcess[str]:
    """Run a page of these blocks, each beginning with its language, as the repository would."""
    (folder / "examples").mkdir()
    shutil.copy(root / "conftest.py", folder)
    page = folder / "page.md"
    page.write_text("\n".join(block.replace("~~~", FENCE) for block in blocks))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "page.md"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_wrong_blocks_fail(root: Path, tmp_path: Path) -> None:
    """A block that raises, exits, prints or reads otherwise than it says fails the tests."""
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


def test_agents_and_credentials_are_hidden(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the developer's shell holds for other programs does not reach a test."""
    for name in ("SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY", "NO_COLOR"):
        monkeypatch.setenv(name, "x")
    names = "{'SSH_AUTH_SOCK', 'AWS_SECRET_ACCESS_KEY', 'NO_COLOR'}"
    seen = f"~~~python\nimport os\nassert {names} & set(os.environ) == set()\n~~~\n"
    home = "~~~python\nassert 'HOME' in os.environ\n~~~\n"
    completed = run_page(root, tmp_path, seen, home)
    assert completed.returncode == 0, completed.stdout
