"""The decisions: a synchronous state machine, events in and effects out.

    state = ScalerState(groups, settings, name="...")
    effects = state.apply(event, now)

A driver (the shell, the simulation, a test) needs what is exported here and nothing else.
`model` holds what is known, `rules` what follows from it, `machine` ties them together.
"""

from __future__ import annotations

from taskscaler.core.machine import ScalerState
from taskscaler.core.model import effects, events, records
from taskscaler.core.model.decisions import Decision, Rule
from taskscaler.core.model.demand import Demand
from taskscaler.core.model.effects import Effect, Gone, Grant, Refuse, Revoke
from taskscaler.core.model.events import Event, Now
from taskscaler.core.model.explain import Standing, explain
from taskscaler.core.model.instance import TRANSITIONS, Life
from taskscaler.core.model.policy import in_force
from taskscaler.core.model.records import (
    ConnectRecord,
    GroupRecord,
    InstanceRecord,
    JobRecord,
    OperationRecord,
    Record,
    TombstoneRecord,
)
from taskscaler.core.model.settings import (
    Period,
    Placement,
    Policy,
    ScheduledPolicy,
    Settings,
    UnknownInstances,
)
from taskscaler.core.model.throttle import Backoff

__all__ = (
    "TRANSITIONS",
    "Backoff",
    "ConnectRecord",
    "Decision",
    "Demand",
    "Effect",
    "Event",
    "Gone",
    "Grant",
    "GroupRecord",
    "InstanceRecord",
    "JobRecord",
    "Life",
    "Now",
    "OperationRecord",
    "Period",
    "Placement",
    "Policy",
    "Record",
    "Refuse",
    "Revoke",
    "Rule",
    "ScalerState",
    "ScheduledPolicy",
    "Settings",
    "Standing",
    "TombstoneRecord",
    "UnknownInstances",
    "effects",
    "events",
    "explain",
    "in_force",
    "records",
)
