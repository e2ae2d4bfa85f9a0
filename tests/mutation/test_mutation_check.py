"""The check itself: what is changed, what becomes of it, and what is explained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.mutation.equivalents import as_toml, read_equivalents
from tests.mutation.mutants import mutants_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

SOURCE = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    LIMIT = 3

def fits(size: int | None, /, *, limit: int = 10) -> bool:
    \"\"\"Return 1 or 2.\"\"\"
    return size is not None and size <= min(limit, 99)

class Books:
    def note(self, key: str) -> None:
        if key in self.keys:
            self.count += 1
        self.last = key
        self.keys.append(key)
"""

TOY = """
def count(last):
    number = 0
    while number < last:
        number += 1
    unused = 5
    return number
"""

TOY_TEST = """
from taskscaler.core.toy import count

def test_count():
    assert count(3) == 3
"""

# In a process of its own, because the trials need one that has not loaded `taskscaler`.
PROGRAM = """
import json, sys
from pathlib import Path
from tests.mutation.mutants import mutants_of
from tests.mutation.trials import Snapshot, Stage, Trials

folder = Path(sys.argv[1])
snapshot = Snapshot(folder / "root", folder / "copy")
mutants = mutants_of("toy.py", snapshot.sources()["toy.py"])
snapshot.enter()
stages = [Stage(("tests/core/test_toy.py",), examples=1, limit_seconds=2)] * 2
verdicts = Trials(stages, jobs=2).run(mutants)
print(json.dumps({mutant.after: verdict for mutant, verdict in verdicts}))
"""


def test_every_kind_of_mistake_is_made() -> None:
    """Comparisons, constants, connectives, membership, extremes and statements are changed."""
    changes = {mutant.after for mutant in mutants_of("books.py", SOURCE)}
    assert changes >= {
        "return size is None and size <= min(limit, 99)",
        "return size is not None or size <= min(limit, 99)",
        "return size is not None and size < min(limit, 99)",
        "return size is not None and size <= min(limit, 98)",
        "return size is not None and size <= max(limit, 99)",
        "def fits(size: int | None, /, *, limit: int = 11) -> bool:",
        "if key not in self.keys:",
        "self.count -= 1",
        "pass",
    }


def test_what_is_not_executed_is_not_changed() -> None:
    """Annotations, docstrings, the stars of parameters and what only checkers read stay."""
    mutants = mutants_of("books.py", SOURCE)
    assert {mutant.where for mutant in mutants} == {"fits", "Books.note"}
    assert not any("&" in mutant.after or "Return" in mutant.after for mutant in mutants)
    assert not any(", *, /" in mutant.after for mutant in mutants)


def test_each_mutant_has_a_name_of_its_own() -> None:
    """Two changes that look the same on the outside are told apart."""
    mutants = mutants_of("twice.py", "def f(a):\n    if a > 1:\n        g()\n    g()\n")
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    assert [mutant.nth for mutant in mutants if mutant.after == "pass"] == [0, 1]


def test_a_mutant_is_killed_survives_or_runs_out_of_time(tmp_path: Path) -> None:
    """What the tests notice is killed, an endless loop is ended, and the rest survives."""
    for name in ("fleeting/src", "taskscaler/src/taskscaler/core", "tests/core", "tests/support"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "copy").mkdir()
    for package in ("taskscaler", "taskscaler/core"):
        (tmp_path / "root/taskscaler/src" / package / "__init__.py").touch()
    (tmp_path / "root/taskscaler/src/taskscaler/core/toy.py").write_text(TOY)
    (tmp_path / "root/tests/core/test_toy.py").write_text(TOY_TEST)
    (tmp_path / "root/fleeting/src/fleeting").symlink_to(ROOT / "fleeting/src/fleeting")
    (tmp_path / "root/pyproject.toml").write_text("")
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    verdicts = json.loads(completed.stdout)
    assert verdicts["while number <= last:"] == "killed"
    assert verdicts["number -= 1"] == "timed out"
    assert verdicts["unused = 6"] == "survived"


def test_every_equivalent_has_its_reason(tmp_path: Path) -> None:
    """The kept list can be read, and an entry as it is proposed has to be completed first."""
    read_equivalents(HERE / "equivalents.toml")
    (mutant, *_) = mutants_of("books.py", SOURCE)
    proposed = tmp_path / "proposed.toml"
    proposed.write_text(as_toml(mutant))
    with pytest.raises(ValueError, match="has no reason"):
        read_equivalents(proposed)
    proposed.write_text(as_toml(mutant).replace('reason = ""', 'reason = "It is never read."'))
    assert list(read_equivalents(proposed)) == [mutant.looks]
