"""Tries mutants: runs the tests against each of them, several at once.

This process has loaded pytest, Hypothesis and `fleeting`, but nothing of
`taskscaler`. For each trial it forks; the child gets the mutated module from
memory, everything else from a snapshot of the repository, and runs pytest. So a
trial costs no start of an interpreter, no file is ever changed, and what is
edited meanwhile does not matter. How the child ends is its verdict.

A child may use so many seconds of the processor, several times what the tests
need, so that an endless loop ends it whatever else the machine is doing; and so
much memory. Nothing in it waits for anything else.

The quick tests come first, the quickest of them before all, and a trial ends at
the first failure. Only who survives them is given to the state machine.
Hypothesis is made to try the same examples each time, without shrinking them, so
that a verdict does not change from run to run.
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
# How many times the seconds that the unchanged code needs a mutant may use, and how many more.
PATIENCE = 4
GRACE_SECONDS = 5
MEMORY_BYTES = 4 << 30
FAILED = 1


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Stage:
    """Tests that are run together.

    Attributes:
        files: of tests, in the order in which they are run.
        examples: how many Hypothesis tries where a test does not say it.
        limit_seconds: of the processor's time.
    """

    files: tuple[str, ...]
    examples: int
    limit_seconds: int = 600


class Snapshot:
    """A copy of what the trials need, so that nobody's editing disturbs them.

    Args:
        root: of the repository.
        folder: an empty one.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        for name in NEEDED:
            shutil.copytree(
                root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(root / "pyproject.toml", folder)

    def sources(self) -> dict[str, str]:
        """Return the files that can be mutated, by name."""
        core = self.folder / SOURCES[1] / PACKAGE.replace(".", "/")
        return {path.name: path.read_text() for path in sorted(core.glob("*.py"))}

    def tests(self) -> tuple[list[str], list[str]]:
        """Return the files of quick tests, and those of slow ones."""
        names = sorted(f"{TESTS}/{path.name}" for path in (self.folder / TESTS).glob("test_*.py"))
        slow = [name for name in names if name.endswith(STATE_MACHINE)]
        return [name for name in names if name not in slow], slow

    def digest(self) -> str:
        """Return what a verdict depends on, in a few letters."""
        digest = sha256()
        for path in sorted(self.folder.rglob("*.py")):
            digest.update(str(path.relative_to(self.folder)).encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def enter(self) -> None:
        """Make this process import from here, and load what all trials have in common."""
        os.chdir(self.folder)
        sys.path[:0] = [str(self.folder / source) for source in SOURCES]
        for name in ("pytest", "hypothesis.stateful", "fleeting.errors", "fleeting.types"):
            importlib.import_module(name)


class Plan:
    """Which tests a mutant has to survive, in stages.

    Args:
        snapshot: what is tested.
        examples: how many the quick tests try.
        machine_examples: how many the state machine tries.
    """

    def __init__(self, snapshot: Snapshot, examples: int, machine_examples: int) -> None:
        self._snapshot = snapshot
        self._examples = examples
        self._machine_examples = machine_examples

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages; the unchanged code is run to see how long each may take.

        Raises:
            RuntimeError: the tests fail with the unchanged code.
        """
        quick, slow = self._snapshot.tests()
        seconds = {name: _measure(Stage((name,), self._examples)) for name in quick}
        ordered = tuple(sorted(quick, key=seconds.__getitem__))
        stages = Stage(ordered, self._examples), Stage(tuple(slow), self._machine_examples)
        return tuple(
            Stage(one.files, one.examples, GRACE_SECONDS + round(PATIENCE * _measure(one)))
            for one in stages
            if one.files
        )


class Trials:
    """Tries mutants in children, several at once.

    Args:
        stages: the tests.
        jobs: how many children at once.
    """

    def __init__(self, stages: Sequence[Stage], jobs: int) -> None:
        self._stages = stages
        self._jobs = jobs

    def run(self, mutants: Iterable[Mutant]) -> Iterator[tuple[Mutant, Verdict]]:
        """Yield each mutant with its verdict, the first to be known first."""
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
        # The kernel sends SIGKILL where SIGXCPU was not enough.
        timed_out = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        return Verdict.TIMED_OUT if timed_out else Verdict.KILLED
    return Verdict.KILLED if os.WEXITSTATUS(status) else Verdict.SURVIVED


def _measure(stage: Stage) -> float:
    """Return how many seconds of the processor the tests need with the unchanged code."""
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
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must not go on twice
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing of the parent's clean-up is the child's.
        os._exit(status)


def _run(stage: Stage, mutant: Mutant | None, output: Path) -> int:
    """Be the child: run the tests, and return zero if all of them pass."""
    # Late, so that this module can be imported without it.
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
    # No rewriting of assertions: nobody reads what they say, and Hypothesis is loaded already.
    options = ["-x", "-q", "--tb=short", "--assert=plain", "-p", "no:cacheprovider"]
    return pytest.main([*options, *stage.files])


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the mutated module before anybody else finds the real one."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != f"{PACKAGE}.{self._mutant.file.removesuffix('.py')}":
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(self._mutant))


class _Loader(importlib.abc.SourceLoader):
    """Loads a mutated module from memory, and leaves no bytecode behind."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    @override
    def get_filename(self, fullname: str) -> str:
        return f"<mutant of {self._mutant.file}>"

    @override
    def get_data(self, path: str) -> bytes:
        return self._mutant.source.encode()
