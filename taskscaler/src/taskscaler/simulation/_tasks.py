"""The tasks of a simulation: they reserve, ask, wait or give up, run, and release.

A task that loses its slot with the instance or the manager tries again with the same key
until it has run to its end. A planned action of a task carries the number of the attempt,
and has no effect if another attempt has begun.
"""

from __future__ import annotations

import enum
from array import array
from random import Random
from typing import TYPE_CHECKING, Protocol

from taskscaler.core import ScalerState, TaskStatus, effects, events
from taskscaler.simulation._faults import Dice, Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskscaler.simulation._clock import Clock
    from taskscaler.simulation._workload import Arrival

__all__ = ("Attempt", "Task", "TaskManager", "TaskPhase", "TaskPlayer")

# The average pause before a task tries again after a refusal or a loss.
RETRY_SECONDS = 60.0


class TaskPhase(enum.Enum):
    """The phase of a task."""

    AWAY = "it wants nothing now"
    RESERVED = "it has a reservation"
    WAITING = "it waits for a slot"
    RUNNING = "it holds a slot"
    SUSPENDED = "it is suspended"
    RESUMING = "it waits to go on in its slot"
    LOST = "it lost its slot and has not released it yet"
    ENDED = "it has ended"


class Task:
    """One task.

    Attributes:
        key: its key.
        arrival: its times.
        phase: its phase.
        attempt: the number of the attempt; actions planned for earlier ones are invalid.
        asked: when it first asked for a slot, in monotonic seconds.
        begun: when it got its present slot, in monotonic seconds.
        left_seconds: how long it still has to run.
        paused: whether it was suspended already, which happens once.
        place: the group and instance of its slot.
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
        self.phase = TaskPhase.AWAY
        self.attempt = 0
        self.asked: float | None = None
        self.begun = 0.0
        self.left_seconds = arrival.runs_seconds
        self.paused = False
        self.place: tuple[str, str] = ("", "")


class Attempt:
    """One attempt of a task. An answer to it does not reach a later attempt."""

    __slots__ = ("_attempt", "_task", "_tasks")

    def __init__(self, tasks: TaskPlayer, task: Task) -> None:
        self._tasks = tasks
        self._task = task
        self._attempt = task.attempt

    def deliver(self, effect: effects.Effect) -> None:
        """Deliver an answer, unless the task has begun another attempt."""
        if self._task.attempt == self._attempt:
            self._tasks.answered(self._task, effect)


class TaskManager(Protocol):
    """The manager as its tasks see it.

    Attributes:
        state: the core; None while the manager is away.
    """

    state: ScalerState | None

    def post(self, event: events.Event) -> list[effects.Effect] | None:
        """Apply an event to the core and return its effects; None while the manager is away."""
        ...


class TaskPlayer:
    """Plays all tasks of a simulation.

    Args:
        clock: the clock on which they act.
        arrivals: the tasks, in the order of their arrival.
        faults: the faults that happen.
        seed: the seed of the random numbers.

    Attributes:
        manager: the manager that they ask; set before the simulation starts.
        active: the tasks that have arrived and not ended, by key.
        waits: for each task that got a slot, the wait for the first one in seconds.
        busy_seconds: the total time that tasks held slots.
        came: the number of tasks that arrived.
        done: the number of tasks that ran to their end.
        cancelled: the number of tasks that gave up waiting.
        refused: the number of refusals.
        lost_slots: the number of slots lost with the instance or the manager.
    """

    manager: TaskManager

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
        """Replace the faults from now on."""
        self._breaks = Dice(faults, f"{self._seed}/breaks", "breaks")

    def attempt(self, key: str) -> Attempt | None:
        """Return the present attempt of a task; None if the task has ended."""
        task = self.active.get(key)
        return None if task is None else Attempt(self, task)

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

    # The actions of a task.

    def _begin(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt or self.manager.state is None:
            return
        lead_seconds = task.arrival.reserves_seconds
        if lead_seconds is None or task.asked is not None:
            self._ask(task, attempt)
            return
        waited = self._clock.seconds - self._zero - task.arrival.at_seconds + lead_seconds
        if waited > task.arrival.patience_seconds:
            # It got no reservation, like a program that does not poll for it any more.
            self._end(task)
            self.cancelled += 1
            return
        task.phase = TaskPhase.RESERVED
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
        if task.phase is TaskPhase.RESERVED and task.arrival.leaves:
            self._end(task)
            self.cancelled += 1
            self.manager.post(events.TaskUnreserved(task.key))
            return
        if task.asked is None:
            task.asked = self._clock.seconds
        task.phase = TaskPhase.WAITING
        patience_seconds = task.arrival.patience_seconds
        if patience_seconds < float("inf"):
            self._clock.after(patience_seconds, self._give_up, task, attempt)
        self.manager.post(events.TaskAsked(task.key))

    def _give_up(self, task: Task, attempt: int) -> None:
        if task.attempt == attempt and task.phase is TaskPhase.WAITING:
            self._end(task)
            self.cancelled += 1
            self._give_back(task)

    def _give_back(self, task: Task) -> None:
        """Cancel or release a task, whichever the core expects."""
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
            self.manager.post(events.TaskReleased(task.key, proved=True))

    def _end(self, task: Task) -> None:
        task.phase = TaskPhase.ENDED
        task.attempt += 1
        del self.active[task.key]

    def _break(self, task: Task, attempt: int) -> None:
        """The instance failed while it ran the task: report it, and try again elsewhere."""
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
        """Return whether its slot is lost; it may not know yet."""
        state = self.manager.state
        if state is None:
            return False
        return not state.holds(task.key)

    def _sleep(self, task: Task, seconds: float) -> None:
        task.phase = TaskPhase.SUSPENDED
        self._clock.after(seconds, self._resume, task, task.attempt)

    def _resume(self, task: Task, attempt: int) -> None:
        if task.attempt != attempt or self.manager.state is None:
            return
        task.attempt += 1
        known = self.manager.state.task(task.key)
        if known is not None and known.since is not None:
            task.phase = TaskPhase.RESUMING
            self.manager.post(events.TaskResumed(task.key))
        else:
            # It was lost while the manager was away, or was not stored in time.
            self._lose(task)

    # The answers of the core.

    def answered(self, task: Task, effect: effects.Effect) -> None:
        """Handle an answer of the core."""
        match effect:
            case effects.Grant():
                if task.phase in (TaskPhase.WAITING, TaskPhase.RESUMING):
                    self._granted(task, effect)
            case effects.Refuse():
                if task.phase in (TaskPhase.WAITING, TaskPhase.RESUMING):
                    self._refused(task)
            case _:
                self._revoked(task)

    def _granted(self, task: Task, grant: effects.Grant) -> None:
        now = self._clock.seconds
        task.phase = TaskPhase.RUNNING
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
        if task.phase is TaskPhase.SUSPENDED:
            self._lose(task)  # It has no slot to release.
        elif task.phase in (TaskPhase.RUNNING, TaskPhase.WAITING, TaskPhase.RESUMING):
            self._lose(task)
            task.phase = TaskPhase.LOST
            self._clock.after(1.0, self._acknowledge, task, task.attempt)

    def _acknowledge(self, task: Task, attempt: int) -> None:
        if task.attempt == attempt and task.phase is TaskPhase.LOST:
            task.phase = TaskPhase.AWAY
            self._give_back(task)

    def _lose(self, task: Task) -> None:
        if task.phase is TaskPhase.RUNNING:
            self.busy_seconds += self._clock.seconds - task.begun
        self.lost_slots += 1
        task.left_seconds = task.arrival.runs_seconds
        self._retry(task)

    def _retry(self, task: Task) -> None:
        task.phase = TaskPhase.AWAY
        task.attempt += 1
        seconds = 2.0 + self._chance.random() * 2 * RETRY_SECONDS
        self._clock.after(seconds, self._begin, task, task.attempt)

    # The end and the start of the manager.

    def lost(self) -> None:
        """The manager ended: slots and places in the queue are lost."""
        for task in self.active.values():
            if task.phase is TaskPhase.RUNNING:
                self.busy_seconds += self._clock.seconds - task.begun
                self.lost_slots += 1
            task.attempt += 1
            # A suspended task still is, unless that was not stored; its resumption shows it.
            if task.phase in (TaskPhase.SUSPENDED, TaskPhase.RESUMING):
                task.phase = TaskPhase.SUSPENDED
                continue
            task.phase = TaskPhase.AWAY
            task.left_seconds = task.arrival.runs_seconds

    def reached(self) -> None:
        """The manager has started again: all tasks start their next attempt."""
        for task in list(self.active.values()):
            task.attempt += 1
            seconds = self._chance.random() * RETRY_SECONDS
            if task.phase is TaskPhase.SUSPENDED:
                self._sleep(task, seconds)
            elif task.phase is TaskPhase.AWAY:
                self._clock.after(seconds, self._begin, task, task.attempt)
