"""The mutation check makes mutants, tries them, and compares survivors with its list."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.mutation import trials
from tests.mutation.equivalents import as_toml, read_equivalents
from tests.mutation.mutants import mutants_of
from tests.mutation.trials import Snapshot, Verdict

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

def double(number):
    return 2 * number
"""

TOY_TEST = """
from hypothesis import given, strategies
from taskscaler.core.rules.toy import count, double

def test_count():
    assert count(3) == 3

@given(strategies.integers())
def test_double(number):
    assert double(number) == number + number
"""

# One mutant for each outcome: the verdict, the suite, and the test that fails first.
KILLER = "tests/core/test_toy.py::test_"
TOY_OUTCOMES = {
    "while number <= last:": ["killed", "tests", f"{KILLER}count"],
    "return 3 * number": ["killed", "Hypothesis", f"{KILLER}double"],
    "number -= 1": ["timed out", "tests", ""],
    "unused = 6": ["survived", "", ""],
}

# It runs in its own process, because the trials need one that has not loaded `taskscaler`.
PROGRAM = """
import json, sys
from pathlib import Path
from tests.mutation.mutants import mutants_of
from tests.mutation.trials import Snapshot, Stage, Trials

SUITES = "tests", "Hypothesis"

folder, *changes = sys.argv[1:]
snapshot = Snapshot(Path(folder, "root"), Path(folder, "copy"))
((file, source),) = snapshot.sources().items()
mutants = [mutant for mutant in mutants_of(file, source) if mutant.after in changes]
snapshot.enter()
stages = [Stage(("tests/core/test_toy.py",), 1, limit_seconds=2, suite=name) for name in SUITES]
outcomes = Trials(jobs=2).run((mutant, stages) for mutant in mutants)
print(json.dumps({mutant.after: outcome for mutant, outcome in outcomes}))
"""


def make_toy_repository(root: Path) -> None:
    """Create a repository with one module in the core and one test."""
    core, tests = root / "taskscaler/src/taskscaler/core", root / "tests/core"
    for folder in (root / "fleeting/src", core / "rules", tests, root / "tests/support"):
        folder.mkdir(parents=True)
    for package in (core.parent, core, core / "rules"):
        (package / "__init__.py").touch()
    (core / "rules/toy.py").write_text(TOY)
    (tests / "test_toy.py").write_text(TOY_TEST)
    (root / "fleeting/src/fleeting").symlink_to(ROOT / "fleeting/src/fleeting")
    (root / "pyproject.toml").touch()


def test_all_kinds_of_mistakes_are_made() -> None:
    """Comparisons, constants, connectives, membership, min, max and statements are changed."""
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


def test_code_that_is_not_executed_is_not_changed() -> None:
    """Annotations, docstrings, stars of parameters and code for type checkers are not changed."""
    mutants = mutants_of("books.py", SOURCE)
    assert {mutant.where for mutant in mutants} == {"fits", "Books.note"}
    assert not any("&" in mutant.after or "Return" in mutant.after for mutant in mutants)
    assert not any(", *, /" in mutant.after for mutant in mutants)


def test_names_of_mutants_are_unique() -> None:
    """Two equal changes in different places have different names."""
    mutants = mutants_of("twice.py", "def f(a):\n    if a > 1:\n        g()\n    g()\n")
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    assert [mutant.nth for mutant in mutants if mutant.after == "pass"] == [0, 1]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0, Verdict.SURVIVED),
        (1 << 8, Verdict.KILLED),
        (signal.SIGSEGV, Verdict.KILLED),
        (signal.SIGXCPU, Verdict.TIMED_OUT),
        (signal.SIGKILL, Verdict.TIMED_OUT),
    ],
)
def test_wait_status_is_the_verdict(status: int, verdict: Verdict) -> None:
    """A child that fails or crashes kills the mutant; the signals of the limit mean a time-out."""
    assert trials._verdict(status) is verdict


@pytest.mark.long
def test_mutant_is_killed_survives_or_times_out(tmp_path: Path) -> None:
    """A failing test kills a mutant, the time limit ends an endless loop, other mutants survive."""
    make_toy_repository(tmp_path / "root")
    (tmp_path / "copy").mkdir()
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *TOY_OUTCOMES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout) == TOY_OUTCOMES


def test_entry_without_reason_is_refused(tmp_path: Path) -> None:
    """A proposed entry can be read only after its reason was written."""
    (mutant, *_) = mutants_of("books.py", SOURCE)
    proposed = tmp_path / "proposed.toml"
    proposed.write_text(as_toml(mutant))
    with pytest.raises(ValueError, match="has no reason"):
        read_equivalents(proposed)
    proposed.write_text(as_toml(mutant).replace('reason = ""', 'reason = "It is never read."'))
    assert list(read_equivalents(proposed)) == [mutant.key]


def test_listed_equivalents_are_in_the_core(tmp_path: Path) -> None:
    """Each entry of the list names a file of the core that contains the changed lines."""
    sources = Snapshot(ROOT, tmp_path / "copy").sources()
    entries = read_equivalents(HERE / "equivalents.toml").values()
    missing = [entry for entry in entries if entry.before not in sources.get(entry.file, "")]
    assert missing == []
