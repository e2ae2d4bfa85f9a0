"""Tries mutants: runs the tests against each of them, several at once.

This process has loaded pytest, Hypothesis and `fleeting`, but nothing of `taskscaler`. It forks a
child for each trial. The child imports the mutated module from memory and everything else from a
snapshot of the repository, and runs pytest. So a trial does not start an interpreter, no file is
changed, and the repository may be edited meanwhile. The exit status of the child is the verdict.

Memory and processor time of a child are limited. The time limit is several times what the tests
need, so an endless loop ends also on a busy machine. The tests never wait.

The quick tests run first, in the order of their time, and a trial ends at the first failure. Only
mutants that survive them are tried with the state machine. Hypothesis tries the same examples each
time, without shrinking them, so that a verdict does not change from run to run.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import resource
import shutil
import signal
import sys
import traceback
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from tests.mutation.mutants import Mutant

__all__ = ("Plan", "Snapshot", "Stage", "Trials", "Verdict")

PACKAGE = "taskscaler.core"
SOURCES = ("fleeting/src", "taskscaler/src")
TESTS = "tests/core"
NEEDED = (*SOURCES, TESTS, "tests/support")
STATE_MACHINE = "test_core_machine.py"
# The time limit of a mutant: a multiple of the time for the unchanged code, and some seconds more.
LIMIT_FACTOR = 4
GRACE_SECONDS = 5
MEMORY_BYTES = 4 << 30
FAILED = 1


class Verdict(StrEnum):
    """The outcome of the trials of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Stage:
    """Tests that run together.

    Attributes:
        files: the files of the tests, in the order in which they run.
        examples: the number of examples for a property test without a number of its own.
        limit_seconds: the limit of the processor time.
    """

    files: tuple[str, ...]
    examples: int
    limit_seconds: int = 600


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

    def tests(self) -> tuple[list[str], list[str]]:
        """Return the files of the quick tests, and those of the slow ones."""
        names = sorted(f"{TESTS}/{path.name}" for path in (self.folder / TESTS).glob("test_*.py"))
        slow = [name for name in names if name.endswith(STATE_MACHINE)]
        return [name for name in names if name not in slow], slow

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
        examples: the number of examples in the quick tests.
        machine_examples: the number of examples in the test of the state machine.
    """

    def __init__(self, snapshot: Snapshot, examples: int, machine_examples: int) -> None:
        self._snapshot = snapshot
        self._examples = examples
        self._machine_examples = machine_examples

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages, with time limits from a run with the unchanged code.

        Raises:
            RuntimeError: the tests fail with the unchanged code.
        """
        quick, slow = self._snapshot.tests()
        seconds = {name: _measure(Stage((name,), self._examples)) for name in quick}
        ordered = tuple(sorted(quick, key=seconds.__getitem__))
        stages = Stage(ordered, self._examples), Stage(tuple(slow), self._machine_examples)
        return tuple(
            Stage(one.files, one.examples, GRACE_SECONDS + round(LIMIT_FACTOR * _measure(one)))
            for one in stages
            if one.files
        )


class Trials:
    """Tries mutants in child processes.

    Args:
        stages: the tests.
        jobs: the number of children at once.
    """

    def __init__(self, stages: Sequence[Stage], jobs: int) -> None:
        self._stages = stages
        self._jobs = jobs

    def run(self, mutants: Iterable[Mutant]) -> Iterator[tuple[Mutant, Verdict]]:
        """Yield each mutant with its verdict, as soon as it is known."""
        waiting = deque((mutant, 0) for mutant in mutants)
        running: dict[int, tuple[Mutant, int]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._jobs:
                    mutant, number = waiting.popleft()
                    running[_start(self._stages[number], mutant)] = mutant, number
                child, status = os.wait()
                mutant, number = running.pop(child)
                verdict = _verdict(status)
                if verdict is Verdict.SURVIVED and number + 1 < len(self._stages):
                    waiting.appendleft((mutant, number + 1))
                else:
                    yield mutant, verdict
        finally:
            for child in running:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _verdict(status: int) -> Verdict:
    if os.WIFSIGNALED(status):
        # The kernel sends SIGKILL if a process goes on after SIGXCPU.
        timed_out = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return Verdict.TIMED_OUT if timed_out else Verdict.KILLED
    return Verdict.KILLED if os.WEXITSTATUS(status) else Verdict.SURVIVED


def _measure(stage: Stage) -> float:
    """Return the seconds of processor time that the tests need with the unchanged code."""
    output = Path("unchanged.log")
    _, status, usage = os.wait4(_start(stage, None, output), 0)
    if status:
        raise RuntimeError(f"the tests fail with the unchanged code:\n{output.read_text()}")
    return usage.ru_utime + usage.ru_stime


def _start(stage: Stage, mutant: Mutant | None, output: Path = Path(os.devnull)) -> int:
    """Fork a child that runs the tests; return its id."""
    child = os.fork()
    if child:
        return child
    status = FAILED
    try:
        status = _run(stage, mutant, output)
    except BaseException:  # noqa: BLE001 - no error may continue the parent's code here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The parent's clean-up must not run in the child.
        os._exit(status)


def _run(stage: Stage, mutant: Mutant | None, output: Path) -> int:
    """Run the tests in the child; return zero if all of them pass."""
    # Imported late, so that this module can be imported without them.
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (stage.limit_seconds, stage.limit_seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=stage.examples,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")
    # Assertions are not rewritten, because their messages are not read. The mutant is in this
    # process, so the tests must run here (`-n 0`). Long proofs are tried as well (`-m ""`).
    options = [
        "-x",
        "-q",
        "--tb=short",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        "-n0",
        "-m",
        "",
    ]
    return pytest.main([*options, *stage.files])


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
