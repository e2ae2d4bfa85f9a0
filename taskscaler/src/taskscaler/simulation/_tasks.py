"""Plays the tasks: they reserve, ask, wait or lose patience, run, and give back.

A task whose slot is lost, with its instance or with the manager, tries again
under its key until it has run to its end. What is planned for a task carries
the number of its attempt, and comes to nothing if another one has begun.
"""

from __future__ import annotations

import enum
from array import array
from random import Random
from typing import TYPE_CHECKING

from taskscaler.core import TaskStatus, effects, events
from taskscaler.simulation._faults import Dice, Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskscaler.simulation._clock import Clock
    from taskscaler.simulation._manager import Manager
    from taskscaler.simulation._workload import Arrival

__all__ = ("Claim", "Phase", "Task", "Tasks")

# How long after a refusal or a loss a task tries again, on average.
RETRY_SECONDS = 60.0


class Phase(enum.Enum):
    """What a task is at."""

    AWAY = "it wants nothing at present"
    RESERVED = "it has a reservation"
    WAITING = "it waits for a slot"
    RUNNING = "it holds a slot"
    SUSPENDED = "it is suspended"
    RESUMING = "it waits to go on in its slot"
    LOST = "it lost its slot and has not said so yet"
    ENDED = "it will never want anything again"


class Task:
    """One task.

    Attributes:
        key: names it.
        arrival: what it came with.
        phase: what it is at.
        attempt: how many times it tried, and so which plans for it are valid.
        asked: when it asked first, in monotonic seconds.
        begun: when it got the slot that it has.
        left_seconds: how long it has still to run.
        paused: whether it was suspended already, which happens once.
        place: group and instance of its slot.
    """

    __slots__ = (
        "arrival",
        "asked",
        "attempt",
        "begun",
        "key",
        "left_seconds",
        "paused",
        "phase",
        "place",
    )

    def __init__(self, key: str, arrival: Arrival) -> None:
        self.key = key
        self.arrival = arrival
        self.phase = Phase.AWAY
        self.attempt = 0
        self.asked: float | None = None
        self.begun = 0.0
        self.left_seconds = arrival.runs_seconds
        self.paused = False
        self.place: tuple[str, str] = ("", "")


class Claim:
    """One attempt of a task: whoever answers it answers this attempt and no later one."""

    __slots__ = ("_attempt", "_task", "_tasks")

    def __init__(self, tasks: Tasks, task: Task) -> None:
        self._tasks = tasks
        self._task = task
        self._attempt = task.attempt

    def deliver(self, effect: effects.Effect) -> None:
        """Tell the task, unless it has begun another attempt."""
        if self._task.attempt == self._attempt:
            self._tasks.answered(self._task, effect)


class Tasks:
    """All tasks of a simulation.

    Args:
        clock: on which they act.
        arrivals: the tasks that come, in the order in which they do.
        faults: what goes wrong.
        seed: where chance comes from.

    Attributes:
        manager: whom they ask; set before anything happens.
        active: those that have come and not ended, by key.
        waits: how long each that got a slot waited for its first, in seconds.
        busy_seconds: how long slots were held in total.
        came: how many have come.
        done: how many have run to their end.
        cancelled: how many gave up by themselves.
        refused: how many times a task was refused.
        lost_slots: how many times a task lost its slot with the instance or the manager.
    """

    manager: Manager

    def __init__(
        self, clock: Clock, arrivals: Iterator[Arrival], faults: Faults, seed: str
    ) -> None:
        self.active: dict[str, Task] = {}
        self.waits = array("d")
        self.busy_seconds = 0.0
        self.came = 0
        self.done = 0
        self.cancelled = 0
        self.refused = 0
        self.lost_slots = 0
        self._clock = clock
        self._zero = clock.seconds
        self._arrivals = arrivals
        self._seed = seed
        self._chance = Random(f"{seed}/tasks")
        self.set_faults(faults)
        self._await_next()

    def set_faults(self, faults: Faults) -> None:
        """Let other things go wrong from now on."""
        self._breaks = Dice(faults, f"{self._seed}/breaks", "breaks")

    def claim(self, key: str) -> Claim | None:
        """Return the present attempt of a task; None if there is no such task any more."""
        task = self.active.get(key)
        return None if task is None else Claim(self, task)

    def _await_next(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is not None:
            lead_seconds = arrival.reserves_seconds or 0.0
            self._clock.at(self._zero + arrival.at_seconds - lead_seconds, self._arrive, arrival)

    def _arrive(self, arrival: Arrival) -> None:
        self.came += 1
        task = Task(f"task-{self.came}", arrival)
        self.active[task.key] = task
        self._await_next()
        self._begin(task, 0)

    # What a task does by itself.

    def _begin(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt or self.manager.state is None:
            return
        lead_seconds = task.arrival.reserves_seconds
        if lead_seconds is None or task.asked is not None:
            self._ask(task, attempt)
            return
        task.phase = Phase.RESERVED
        answer = self.manager.post(events.TaskReserved(task.key))
        if answer is None:
            return
        if any(isinstance(effect, effects.Refuse) for effect in answer):
            self._refused(task)
        else:
            self._clock.after(lead_seconds, self._ask, task, attempt)

    def _ask(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt:
            return
        if task.phase is Phase.RESERVED and task.arrival.leaves:
            self._end(task)
            self.cancelled += 1
            self.manager.post(events.TaskUnreserved(task.key))
            return
        if task.asked is None:
            task.asked = self._clock.seconds
        task.phase = Phase.WAITING
        patience_seconds = task.arrival.patience_seconds
        if patience_seconds < float("inf"):
            self._clock.after(patience_seconds, self._give_up, task, attempt)
        self.manager.post(events.TaskAsked(task.key))

    def _give_up(self, task: Task, attempt: int) -> None:
        if task.attempt == attempt and task.phase is Phase.WAITING:
            self._end(task)
            self.cancelled += 1
            self._give_back(task)

    def _give_back(self, task: Task) -> None:
        """Tell the core that a task wants nothing more, whatever the core has for it."""
        state = self.manager.state
        if state is None:
            return
        known = state.task(task.key)
        if known is None:
            return
        if known.status is TaskStatus.WAITING:
            self.manager.post(events.TaskCancelled(task.key))
        elif known.instance and known.since is None:
            self.manager.post(events.TaskReleased(task.key))

    def _finish(self, task: Task, attempt: int) -> None:
        if task.attempt == attempt:
            self.busy_seconds += self._clock.seconds - task.begun
            self.done += 1
            self._end(task)
            self.manager.post(events.TaskReleased(task.key))

    def _end(self, task: Task) -> None:
        task.phase = Phase.ENDED
        task.attempt += 1
        del self.active[task.key]

    def _break(self, task: Task, attempt: int) -> None:
        """The instance failed under it: it says so, and tries again elsewhere."""
        if task.attempt != attempt:
            return
        group, id = task.place
        answer = self.manager.post(events.InstanceBroke(group, id, "the connection broke"))
        if answer is not None and task.attempt == attempt:
            self._lose(task)
            self._give_back(task)

    def _suspend(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt or self._has_lost(task):
            return
        task.paused = True
        task.attempt += 1
        self.busy_seconds += self._clock.seconds - task.begun
        task.left_seconds -= self._clock.seconds - task.begun
        self._sleep(task, task.arrival.pause_seconds or 0.0)
        self.manager.post(events.TaskSuspended(task.key))

    def _has_lost(self, task: Task) -> bool:
        """Return whether its slot is lost, of which it may not have heard yet."""
        state = self.manager.state
        if state is None:
            return False
        return not state.holds(task.key)

    def _sleep(self, task: Task, seconds: float) -> None:
        task.phase = Phase.SUSPENDED
        self._clock.after(seconds, self._resume, task, task.attempt)

    def _resume(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt or self.manager.state is None:
            return
        task.attempt += 1
        known = self.manager.state.task(task.key)
        if known is not None and known.since is not None:
            task.phase = Phase.RESUMING
            self.manager.post(events.TaskResumed(task.key))
        else:
            # It was lost while nobody was there to tell it, or was not stored in time.
            self._lose(task)

    # What it is told.

    def answered(self, task: Task, effect: effects.Effect) -> None:
        """Take an answer of the core."""
        match effect:
            case effects.Grant():
                if task.phase in (Phase.WAITING, Phase.RESUMING):
                    self._granted(task, effect)
            case effects.Refuse():
                if task.phase in (Phase.WAITING, Phase.RESUMING):
                    self._refused(task)
            case _:
                self._revoked(task)

    def _granted(self, task: Task, grant: effects.Grant) -> None:
        now = self._clock.seconds
        task.phase = Phase.RUNNING
        task.begun = now
        task.place = (grant.group, grant.id)
        if task.asked is not None and not task.paused and len(self.waits) < self.came:
            self.waits.append(now - task.asked)
        if self._breaks.throw():
            self._clock.after(task.left_seconds / 2, self._break, task, task.attempt)
        elif task.arrival.pause_seconds is not None and not task.paused:
            self._clock.after(task.left_seconds / 2, self._suspend, task, task.attempt)
        else:
            self._clock.after(task.left_seconds, self._finish, task, task.attempt)

    def _refused(self, task: Task) -> None:
        self.refused += 1
        state = self.manager.state
        known = None if state is None else state.task(task.key)
        if known is not None and known.since is not None:
            task.attempt += 1
            self._sleep(task, RETRY_SECONDS)
        else:
            self._retry(task)

    def _revoked(self, task: Task) -> None:
        if task.phase is Phase.SUSPENDED:
            self._lose(task)  # It holds nothing that it could give back.
        elif task.phase in (Phase.RUNNING, Phase.WAITING, Phase.RESUMING):
            self._lose(task)
            task.phase = Phase.LOST
            self._clock.after(1.0, self._acknowledge, task, task.attempt)

    def _acknowledge(self, task: Task, attempt: int) -> None:
        if task.attempt == attempt and task.phase is Phase.LOST:
            task.phase = Phase.AWAY
            self._give_back(task)

    def _lose(self, task: Task) -> None:
        if task.phase is Phase.RUNNING:
            self.busy_seconds += self._clock.seconds - task.begun
        self.lost_slots += 1
        task.left_seconds = task.arrival.runs_seconds
        self._retry(task)

    def _retry(self, task: Task) -> None:
        task.phase = Phase.AWAY
        task.attempt += 1
        seconds = 2.0 + self._chance.random() * 2 * RETRY_SECONDS
        self._clock.after(seconds, self._begin, task, task.attempt)

    # What happens to their manager.

    def lost(self) -> None:
        """The manager ended: whatever they had or waited for is lost."""
        for task in self.active.values():
            if task.phase is Phase.RUNNING:
                self.busy_seconds += self._clock.seconds - task.begun
                self.lost_slots += 1
            task.attempt += 1
            # What was suspended is so still, unless that was not stored; it will see.
            if task.phase in (Phase.SUSPENDED, Phase.RESUMING):
                task.phase = Phase.SUSPENDED
                continue
            task.phase = Phase.AWAY
            task.left_seconds = task.arrival.runs_seconds

    def reached(self) -> None:
        """The manager is there again: they begin anew."""
        for task in list(self.active.values()):
            task.attempt += 1
            seconds = self._chance.random() * RETRY_SECONDS
            if task.phase is Phase.SUSPENDED:
                self._sleep(task, seconds)
            elif task.phase is Phase.AWAY:
                self._clock.after(seconds, self._begin, task, task.attempt)
