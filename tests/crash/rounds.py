"""Starts the command, kills it at a random moment, and starts it again.

A round is one call of the command. The moment of the kill is chosen before the
start: some time after the start, or after a certain message. If the call ends
before that, the set of jobs is complete and is checked; the next round starts
another set, with the same state file and the same instances.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.crash.checks import Broken, check_announced, check_leaks, check_set
from tests.crash.world import JOBS, JobSet

if TYPE_CHECKING:
    from collections.abc import Callable

# Longer than any successful call takes, on the slowest computer.
DEADLINE_SECONDS = 120.0
STARTED = re.compile(r"^(\S+): started on ")
ENDED = re.compile(r"^(\S+): (success|failed|system_failure)\b(.*)")
EARLIER = re.compile(r"^(\d+) jobs? ended in an earlier call")
SUMMED_UP = re.compile(r"^\d+ jobs: ")
MOMENTS = ("start-up", "opening", "job start", "job end", "shutdown")


class Call:
    """One call of the command, and its messages."""

    def __init__(self, words: list[str]) -> None:
        program = Path(sys.executable).with_name("taskscaler")
        self.process = subprocess.Popen(
            [program, "run", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.began = time.monotonic()
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def listen(self, until: Callable[[Call], bool]) -> bool:
        """Read messages until a condition holds; return False if the call ended before."""
        while not until(self):
            left = self.began + DEADLINE_SECONDS - time.monotonic()
            try:
                line = self._queue.get(timeout=max(0.0, left))
            except queue.Empty:
                self.kill()
                raise Broken("the command hangs: " + " | ".join(self.lines[-5:])) from None
            if line is None:
                self._queue.put(None)  # For the next call of this function.
                return False
            self._take(line)
        return True

    def _take(self, line: str) -> None:
        self.lines.append(line)
        if STARTED.match(line):
            self.counts["started"] += 1
        elif ENDED.match(line):
            self.counts["ended"] += 1
            self.counts["over"] += 1
        elif found := EARLIER.match(line):
            self.counts["over"] += int(found[1])
        elif SUMMED_UP.match(line):
            self.counts["summed up"] += 1

    def kill(self) -> None:
        """Kill only the manager; then read the rest of its messages."""
        self.process.kill()
        self.process.wait()
        self.drain()

    def drain(self) -> None:
        """Read all messages that are still unread."""
        self._reader.join()
        while (line := self._queue.get()) is not None:
            self._take(line)

    def ends(self) -> list[tuple[str, str, str]]:
        """Return name, state and reason of each end that was reported."""
        found = [match for line in self.lines if (match := ENDED.match(line))]
        return [(match[1], match[2], match[3]) for match in found]


class Campaign:
    """Many rounds on one state file and one root of instances.

    Attributes:
        round: the number of the current round.
    """

    def __init__(self, folder: Path, *, seed: int, times: int, say: Callable[[str], None]) -> None:
        self.round = 0
        self._folder = folder
        self._random = Random(seed)  # noqa: S311 -- the seed repeats a campaign
        self._times = times
        self._say = say
        self._moments: Counter[str] = Counter()
        self._sets = 0
        self._states: Counter[str] = Counter()

    def run(self) -> None:
        """Kill the command `times` times, complete the last set of jobs, and check everything.

        Raises:
            Broken: a condition does not hold.
        """
        while self._moments.total() < self._times:
            self._sets += 1
            self._complete(JobSet(self._folder, self._random, self._sets))
        check_leaks(self._folder)

    def summary(self) -> str:
        """Return a summary in one sentence."""
        moments = ", ".join(f"{self._moments[moment]} {moment}" for moment in MOMENTS)
        states = ", ".join(f"{count} {state}" for state, count in sorted(self._states.items()))
        return (
            f"killed {self._moments.total()} times ({moments}); {self._sets} sets of jobs were "
            f"completed: {states}; nothing ran twice, was lost unreported, or leaked"
        )

    def _complete(self, jobs: JobSet) -> None:
        """Run one set of jobs to completion, with as many kills as are left."""
        calls: list[Call] = []
        announced: dict[str, tuple[str, int]] = {}
        while True:
            self.round += 1
            call = Call(["--state", str(self._folder / "state.sqlite"), *jobs.words()])
            calls.append(call)
            killed = self._moments.total() < self._times and self._kill(call)
            if not killed:
                call.listen(lambda _: False)
                call.process.wait()
            check_announced(jobs, announced, call.ends())
            # After its summary the journal may be cleared; another call would start again.
            if not killed or call.counts["summed up"]:
                break
        code = None if killed else call.process.returncode
        self._states += check_set(jobs, code, announced, calls)

    def _kill(self, call: Call) -> bool:
        """Kill a call at a random moment; return False if it ended before."""
        moment = self._random.choice(MOMENTS)
        pause = self._random.uniform(0, 1)
        count = self._random.randint(1, 6)
        match moment:
            case "start-up":
                reached, seconds = True, pause
            case "opening":
                reached, seconds = True, 1 + pause * 1.5
            case "job start":
                reached, seconds = call.listen(lambda one: one.counts["started"] >= count), 0.1
            case "job end":
                reached, seconds = call.listen(lambda one: one.counts["ended"] >= count), 0.02
            case _:
                over = call.listen(lambda one: one.counts["over"] >= JOBS)
                reached, seconds = over, 0.6
        if reached:
            # Only the clock tells how far another process has come.
            time.sleep(seconds if moment in ("start-up", "opening") else seconds * pause)
            reached = call.process.poll() is None
        if reached:
            call.kill()
            self._moments[moment] += 1
            self._say(f"round {self.round}: killed at {moment} ({'; '.join(call.lines[-1:])})")
        return reached
