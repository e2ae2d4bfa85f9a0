"""The decisions: a synchronous state machine, events in and effects out.

    state = ScalerState(groups, settings, name="...")
    effects = state.apply(event, now)

Drivers (the runtime, the simulation, the tests) import from here only. Layers:

    model/      what is known: plain values, and the parts of a group, each the only writer
                of its fields; imports nothing of the layers below
    rules/      what follows: one file for each subject; `placing` and `leaving` are shared
    machine.py  the table of handlers, and when to decide next
    views.py    read-only views of tasks and instances
"""

from __future__ import annotations

from taskscaler.core.machine import ScalerState
from taskscaler.core.model import effects, events, records
from taskscaler.core.model.decisions import Decision, Rule
from taskscaler.core.model.demand import Demand
from taskscaler.core.model.effects import Effect, Gone, Grant, Refuse, Revoke
from taskscaler.core.model.events import Event, Now
from taskscaler.core.model.explain import Standing, explain, hindrance, queued
from taskscaler.core.model.lifecycle import TRANSITIONS, Phase
from taskscaler.core.model.obstacles import Obstacle, Stage
from taskscaler.core.model.policy import in_force
from taskscaler.core.model.records import (
    ConnectRecord,
    GroupRecord,
    InstanceRecord,
    JobRecord,
    OperationRecord,
    QueueRecord,
    Record,
    ThrottleRecord,
    TombstoneRecord,
)
from taskscaler.core.model.settings import (
    LONGEST,
    MAY_BE_ZERO,
    Period,
    Placement,
    Policy,
    ScheduledPolicy,
    Settings,
    UnknownInstances,
)
from taskscaler.core.model.wording import counted
from taskscaler.core.views import InstanceView, TaskStatus, TaskView

__all__ = (
    "LONGEST",
    "MAY_BE_ZERO",
    "TRANSITIONS",
    "ConnectRecord",
    "Decision",
    "Demand",
    "Effect",
    "Event",
    "Gone",
    "Grant",
    "GroupRecord",
    "InstanceRecord",
    "InstanceView",
    "JobRecord",
    "Now",
    "Obstacle",
    "OperationRecord",
    "Period",
    "Phase",
    "Placement",
    "Policy",
    "QueueRecord",
    "Record",
    "Refuse",
    "Revoke",
    "Rule",
    "ScalerState",
    "ScheduledPolicy",
    "Settings",
    "Stage",
    "Standing",
    "TaskStatus",
    "TaskView",
    "ThrottleRecord",
    "TombstoneRecord",
    "UnknownInstances",
    "counted",
    "effects",
    "events",
    "explain",
    "hindrance",
    "in_force",
    "queued",
    "records",
)
