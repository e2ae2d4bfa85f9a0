"""Tries mutants: runs the tests against each of them, several at once.

This process has loaded pytest, Hypothesis and `fleeting`, but nothing of `taskscaler`. It forks a
child for each trial. The child imports the mutated module from memory and everything else from a
snapshot of the repository, and runs pytest. So a trial does not start an interpreter, no file is
changed, and the repository may be edited meanwhile. The exit status of the child is the verdict.

Memory and processor time of a child are limited. The time limit is several times what the tests
need, so an endless loop ends also on a busy machine. The tests never wait.

The tests with examples of their own run first, in the order of the time of their files, and a trial
ends at the first failure, which is noted. Only mutants that survive them are tried with the
properties and the state machine of Hypothesis, which tries the same examples each time, without
shrinking them, so that a verdict does not change from run to run.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import resource
import runpy
import shutil
import signal
import sys
import traceback
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    import pytest
    from tests.mutation.mutants import Mutant

__all__ = (
    "EXAMPLES",
    "PROPERTIES",
    "Outcome",
    "Plan",
    "Program",
    "Snapshot",
    "Stage",
    "Suite",
    "Trials",
    "Verdict",
)

PACKAGE = "taskscaler.core"
SOURCES = ("fleeting/src", "taskscaler/src")
TESTS = "tests/core"
NEEDED = (*SOURCES, TESTS, "tests/support")
# The names of the two suites of the tests of the core, and how pytest selects them.
EXAMPLES = "tests"
PROPERTIES = "Hypothesis"
SELECTED = {EXAMPLES: "not hypothesis", PROPERTIES: "hypothesis"}
# The time limit of a mutant: a multiple of the time for the unchanged code, and some seconds more.
LIMIT_FACTOR = 4
GRACE_SECONDS = 5
MEMORY_BYTES = 4 << 30
FAILED = 1
# The exit status of pytest if it has nothing to run.
NOTHING_SELECTED = 5


class Verdict(StrEnum):
    """The outcome of the trials of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


class Outcome(NamedTuple):
    """The result of the trials of a mutant.

    Attributes:
        verdict: the verdict.
        suite: the suite that noticed the mutant; empty if none did.
        killer: the test that failed first; empty if none did.
    """

    verdict: Verdict
    suite: str = ""
    killer: str = ""


class Suite(Protocol):
    """Something that may notice a mutant.

    Attributes:
        suite: its name.
        limit_seconds: the limit of the processor time.
    """

    @property
    def suite(self) -> str: ...

    @property
    def limit_seconds(self) -> int: ...

    def run(self, notes: Path) -> int:
        """Run in this process; return zero if all is well.

        Args:
            notes: the file for the ids of tests that fail.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """Tests that run together.

    Attributes:
        tests: the files or the ids of the tests, in the order in which they run.
        examples: the number of examples for a property test without a number of its own.
        limit_seconds: the limit of the processor time.
        suite: its name; that of a suite of the core selects the tests of that suite.
    """

    tests: tuple[str, ...]
    examples: int
    limit_seconds: int = 600
    suite: str = "named"

    def run(self, notes: Path) -> int:
        """Run the tests until the first failure."""
        # Imported late, so that this module can be imported without them.
        import pytest
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutation",
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=self.examples,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutation")
        # Assertions are not rewritten, because their messages are not read. The mutant is in this
        # process, so the tests must run here (`-n0`). Long proofs are tried as well (`-m ""`).
        options = ["-x", "-q", "--tb=short", "--assert=plain", "-p", "no:cacheprovider", "-n0"]
        selected = ["-m", SELECTED.get(self.suite, "")]
        return pytest.main([*options, *selected, *self.tests], plugins=[_Notes(notes)])


@dataclass(frozen=True, slots=True)
class Program:
    """A program that exits with another status than zero if something is wrong.

    Attributes:
        module: its name, as after `python -m`.
        arguments: of its command line.
        limit_seconds: the limit of the processor time.
    """

    module: str
    arguments: tuple[str, ...]
    limit_seconds: int = 600

    @property
    def suite(self) -> str:
        """Return the name of the suite: that of the program."""
        return self.module.rpartition(".")[2]

    def run(self, notes: Path) -> int:
        """Run the program."""
        del notes
        sys.argv = [self.module, *self.arguments]
        try:
            runpy.run_module(self.module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            return FAILED if ended.code else 0
        return 0


class _Notes:
    """A plugin of pytest that notes which tests fail."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that fails."""
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            with self._path.open("a") as file:
                file.write(f"{report.nodeid}\n")


class Snapshot:
    """A copy of the files that the trials need, so that edits do not disturb them.

    Args:
        root: the root of the repository.
        folder: an empty folder for the copy.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        for name in NEEDED:
            shutil.copytree(
                root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(root / "pyproject.toml", folder)

    def sources(self) -> dict[str, str]:
        """Return the files of the core by their paths, such as `model/demand.py`."""
        core = self.folder / SOURCES[1] / PACKAGE.replace(".", "/")
        return {
            path.relative_to(core).as_posix(): path.read_text()
            for path in sorted(core.rglob("*.py"))
            if path.name != "__init__.py"
        }

    def tests(self) -> list[str]:
        """Return the files of the tests of the core."""
        return sorted(f"{TESTS}/{path.name}" for path in (self.folder / TESTS).glob("test_*.py"))

    def digest(self) -> str:
        """Return a short digest of all files, on which the verdicts depend."""
        digest = sha256()
        for path in sorted(self.folder.rglob("*.py")):
            digest.update(str(path.relative_to(self.folder)).encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def enter(self) -> None:
        """Make this process import from the copy, and load what all trials share."""
        os.chdir(self.folder)
        sys.path[:0] = [str(self.folder / source) for source in SOURCES]
        for name in ("pytest", "hypothesis.stateful", "fleeting.errors", "fleeting.types"):
            importlib.import_module(name)


class Plan:
    """The stages of tests for each mutant.

    Args:
        snapshot: the files.
        examples: the number of examples in each property test, and in the state machine.
    """

    def __init__(self, snapshot: Snapshot, examples: int) -> None:
        self._snapshot = snapshot
        self._examples = examples

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of both suites."""
        return self.stage(EXAMPLES), self.stage(PROPERTIES)

    def stage(self, suite: str) -> Stage:
        """Return the tests of a suite, with a time limit from a run with the unchanged code.

        Raises:
            RuntimeError: the tests fail with the unchanged code.
        """
        seconds: dict[str, float] = {}
        for name in self._snapshot.tests():
            used = _measure(Stage((name,), self._examples, suite=suite))
            if used is not None:
                seconds[name] = used
        tests = tuple(sorted(seconds, key=seconds.__getitem__))
        limit = GRACE_SECONDS + round(LIMIT_FACTOR * sum(seconds.values()))
        return Stage(tests, self._examples, limit, suite)


class Trials:
    """Tries mutants in child processes.

    Args:
        jobs: the number of children at once.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def run(
        self, planned: Iterable[tuple[Mutant, Sequence[Suite]]]
    ) -> Iterator[tuple[Mutant, Outcome]]:
        """Yield each mutant with its outcome, as soon as it is known.

        Args:
            planned: each mutant with the suites to try one after the other.
        """
        waiting = deque((mutant, tuple(suites)) for mutant, suites in planned)
        running: dict[int, tuple[Mutant, tuple[Suite, ...]]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._jobs:
                    mutant, suites = waiting.popleft()
                    running[_start(suites[0], mutant)] = mutant, suites
                child, status = os.wait()
                mutant, suites = running.pop(child)
                outcome = _outcome(suites[0], child, status)
                if outcome.verdict is Verdict.SURVIVED and suites[1:]:
                    waiting.appendleft((mutant, suites[1:]))
                else:
                    yield mutant, outcome
        finally:
            for child in running:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _outcome(suite: Suite, child: int, status: int) -> Outcome:
    """Return what came of a child, and remove its notes."""
    notes = _notes(child)
    failed = notes.read_text().splitlines() if notes.exists() else []
    notes.unlink(missing_ok=True)
    verdict = _verdict(status)
    if verdict is Verdict.SURVIVED:
        return Outcome(verdict)
    return Outcome(verdict, suite.suite, failed[0] if failed else "")


def _notes(child: int) -> Path:
    return Path(f"failed-{child}.txt")


def _verdict(status: int) -> Verdict:
    if os.WIFSIGNALED(status):
        # The kernel sends SIGKILL if a process goes on after SIGXCPU.
        timed_out = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return Verdict.TIMED_OUT if timed_out else Verdict.KILLED
    return Verdict.KILLED if os.WEXITSTATUS(status) else Verdict.SURVIVED


def _measure(stage: Stage) -> float | None:
    """Return the seconds of processor time that tests need; None if none is selected.

    Raises:
        RuntimeError: the tests fail with the unchanged code.
    """
    output = Path("unchanged.log")
    child, status, usage = os.wait4(_start(stage, None, output), 0)
    _notes(child).unlink(missing_ok=True)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == NOTHING_SELECTED:
        return None
    if status:
        raise RuntimeError(f"the tests fail with the unchanged code:\n{output.read_text()}")
    return usage.ru_utime + usage.ru_stime


def _start(suite: Suite, mutant: Mutant | None, output: Path = Path(os.devnull)) -> int:
    """Fork a child that runs a suite; return its id."""
    child = os.fork()
    if child:
        return child
    status = FAILED
    try:
        status = _run(suite, mutant, output)
    except BaseException:  # noqa: BLE001 - no error may continue the parent's code here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The parent's clean-up must not run in the child.
        os._exit(status)


def _run(suite: Suite, mutant: Mutant | None, output: Path) -> int:
    """Run the tests in the child; return zero if all of them pass."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (suite.limit_seconds, suite.limit_seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    return suite.run(_notes(os.getpid()).absolute())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutated module before another finder finds the original."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != f"{PACKAGE}.{self._mutant.file.removesuffix('.py').replace('/', '.')}":
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(self._mutant))


class _Loader(importlib.abc.SourceLoader):
    """Loads a mutated module from memory, without writing bytecode."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    @override
    def get_filename(self, fullname: str) -> str:
        return f"<mutant of {self._mutant.file}>"

    @override
    def get_data(self, path: str) -> bytes:
        return self._mutant.source.encode()
