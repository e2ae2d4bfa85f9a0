"""Changes members and machines of the fake cloud, as Compute Engine would.

Nothing is done at once: an operation is done after a while, and what it scheduled happens later
still. `Engine.run` does what is due by now.
"""

from __future__ import annotations

import heapq
import itertools
import re
import time
from functools import partial
from typing import TYPE_CHECKING

from gce_state import (
    FakeMachine,
    FakeMember,
    FakeOperation,
    Pace,
    Refusal,
    now_text,
    random_letters,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gce_state import FakeGroup

__all__ = ("Engine",)

MOST_AT_ONCE = 1000
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_MEMBER = re.compile(
    r"(?:https?://[^/]+/compute/v1/)?(?:projects/[^/]+/)?zones/(?P<zone>[^/]+)/instances/(?P<name>[^/]+)"
)
Errors = list[tuple[str, str]]


class Engine:
    """Changes the state of the fake cloud.

    Attributes:
        pace: how long everything takes.
        machines: all machines, by zone and name.
        shortages: why machines cannot be created, by zone; `*` stands for all zones.
        operations: by name.
        new_machine: called when a machine is made.
        started: called when it runs.
        stopped: called when it does not any more; with whether it will run again.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self.machines: dict[tuple[str, str], FakeMachine] = {}
        self.shortages: dict[str, Errors] = {}
        self.operations: dict[str, FakeOperation] = {}
        self.started: Callable[[FakeMachine], None]
        self.stopped: Callable[[FakeMachine, bool], None]
        self.new_machine: Callable[[FakeMachine], None]
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count(1)

    # Time.

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._agenda, (time.monotonic() + seconds, next(self._count), action))

    def run(self, until: float | None = None) -> None:
        """Do everything that is due by now, or until a moment."""
        moment = time.monotonic() if until is None else until
        while self._agenda and self._agenda[0][0] <= moment:
            heapq.heappop(self._agenda)[2]()

    def settle(self, rounds: int = 6) -> None:
        """Do everything that is under way, and what follows from it."""
        for _ in range(rounds):
            due = [heapq.heappop(self._agenda)[2] for _ in range(len(self._agenda))]
            for action in due:
                action()

    # Operations.

    def begin(
        self, kind: str, scope: str, request_id: str, apply: Callable[[], Errors]
    ) -> FakeOperation:
        """Accept an operation. A request id that was seen before begins nothing."""
        for known in self.operations.values():
            if request_id and known.request_id == request_id:
                return known
        name = f"operation-{next(self._count)}"
        operation = FakeOperation(name, kind, scope, request_id, apply)
        self.operations[name] = operation

        def finish() -> None:
            operation.errors = operation.errors or operation.apply()
            operation.status = "DONE"

        self.after(self.pace.operation, finish)
        return operation

    # Members.

    def create(self, group: FakeGroup, names: Sequence[str]) -> Errors:
        """Add members."""
        taken = [name for name in names if name in group.members]
        if taken:
            text = f"Instance '{taken[0]}' already exists in the group."
            return [("MEMBER_ALREADY_EXISTS", text)]
        for name in names:
            zone = group.zones[group.turn % len(group.zones)]
            group.turn += 1
            action = "CREATING" if group.retries else "CREATING_WITHOUT_RETRIES"
            member = group.members[name] = FakeMember(name, zone, action)
            group.target += 1
            self.after(self.pace.create, partial(self._launch, group, member))
        return []

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse names that Google refuses."""
        for name in names:
            if not _NAME.fullmatch(name):
                raise Refusal(400, "invalid", f"Invalid value for field 'name': '{name}'")
        if len(names) > MOST_AT_ONCE or not names:
            raise Refusal(400, "invalid", f"Invalid number of instances: {len(names)}")

    def resize(self, group: FakeGroup, size: int) -> Errors:
        """Set the target size; a smaller one makes Google choose which members go."""
        while group.target < size:
            self.create(group, [f"{group.name}-{random_letters(4)}"])
        victims = [one for one in group.members.values() if one.target == "RUNNING"]
        self.delete(group, victims[: max(0, group.target - size)])
        return []

    def _launch(self, group: FakeGroup, member: FakeMember) -> None:
        if group.members.get(member.name) is not member or member.action == "DELETING":
            return
        member.errors = self._obstacles(group, member)
        if member.errors:
            if group.retries:
                self.after(max(0.05, self.pace.create), lambda: self._launch(group, member))
            else:
                self._give_up(group, member)
            return
        machine = FakeMachine(member.name, member.zone)
        self.new_machine(machine)
        self.machines[member.zone, member.name] = member.machine = machine
        self.after(self.pace.boot, lambda: self._boot(member, machine))

    def _obstacles(self, group: FakeGroup, member: FakeMember) -> Errors:
        if (member.zone, member.name) in self.machines:
            return [("RESOURCE_ALREADY_EXISTS", f"The resource '{member.name}' already exists")]
        found = self.shortages.get(member.zone) or self.shortages.get("*", [])
        others = [zone for zone in group.zones if zone not in self.shortages]
        if found and others and "*" not in self.shortages:
            member.zone = others[0]
            return []
        return found

    def _give_up(self, group: FakeGroup, member: FakeMember) -> None:
        """Drop a member that was to be tried only once."""
        code, text = member.errors[-1]
        url = member.describe("project")["instance"]
        group.log.append(
            {
                "timestamp": now_text(),
                "error": {"code": code, "message": text},
                "instanceActionDetails": {"action": "CREATING", "instance": url},
            }
        )
        del group.members[member.name]
        group.target -= 1

    def _boot(self, member: FakeMember, machine: FakeMachine) -> None:
        if machine.status in {"PROVISIONING", "STAGING", "REPAIRING"}:
            machine.status = "RUNNING"
            if member.action != "DELETING":
                member.action = "NONE"
                self.started(machine)

    def chosen(self, group: FakeGroup, texts: Sequence[str], *, skip: bool) -> list[FakeMember]:
        """Return the members that a request names.

        Args:
            group: their group.
            texts: how the request names them.
            skip: whether those that are gone or being deleted do not matter.
        """
        if len(texts) > MOST_AT_ONCE or not texts:
            raise Refusal(400, "invalid", f"Invalid number of instances: {len(texts)}")
        matches = [_MEMBER.fullmatch(text) for text in texts]
        if any(matches) and not all(matches):
            raise Refusal(400, "invalid", "URLs and names cannot be mixed in one request")
        found: list[FakeMember] = []
        for text, match in zip(texts, matches, strict=True):
            if match is None and (group.region or "/" in text):
                raise Refusal(400, "invalid", f"Invalid value for field 'instances': '{text}'")
            zone, name = (match["zone"], match["name"]) if match else (group.zones[0], text)
            if zone not in group.zones:
                raise Refusal(400, "invalid", f"Instance '{text}' is not in the group's place")
            member = group.members.get(name)
            if member is not None and member.zone == zone and member.action != "DELETING":
                found.append(member)
            elif not skip:
                raise Refusal(400, "invalid", f"Instance '{text}' is not a member of the group")
        return list({one.name: one for one in found}.values())

    def delete(self, group: FakeGroup, members: Sequence[FakeMember]) -> Errors:
        """Delete members and lower the target size."""
        for member in members:
            if member.action == "DELETING":
                continue
            if member.target == "SUSPENDED":
                group.suspended -= 1
            else:
                group.target -= 1
            member.action, member.target = "DELETING", "DELETED"
            if member.machine is not None:
                member.machine.status = "STOPPING"
                self.stopped(member.machine, False)  # noqa: FBT003 - a callback
            self.after(self.pace.delete, partial(self._remove, group, member))
        return []

    def _remove(self, group: FakeGroup, member: FakeMember) -> None:
        if group.members.get(member.name) is member:
            del group.members[member.name]
        if member.machine is not None:
            self.machines.pop((member.zone, member.name), None)

    def suspend(self, group: FakeGroup, members: Sequence[FakeMember]) -> Errors:
        """Suspend members, which do not count against the target size any more."""
        for member in members:
            machine = member.machine
            if machine is None or machine.status != "RUNNING":
                return [("RESOURCE_NOT_READY", f"Instance '{member.name}' is not running")]
        for member in members:
            group.target -= 1
            group.suspended += 1
            member.action, member.target = "SUSPENDING", "SUSPENDED"
            assert member.machine is not None
            member.machine.status = "SUSPENDING"
            self.stopped(member.machine, True)  # noqa: FBT003 - a callback
            self.after(self.pace.suspend, partial(self._rest, member, "SUSPENDED"))
        return []

    def resume(self, group: FakeGroup, members: Sequence[FakeMember]) -> Errors:
        """Start suspended members again."""
        for member in members:
            if member.target != "SUSPENDED":
                return [("RESOURCE_NOT_READY", f"Instance '{member.name}' is not suspended")]
        for member in members:
            group.target += 1
            group.suspended -= 1
            member.action, member.target = "RESUMING", "RUNNING"
            self.after(self.pace.suspend, partial(self._rest, member, "RUNNING"))
        return []

    def _rest(self, member: FakeMember, status: str) -> None:
        wanted = {"SUSPENDED": "SUSPENDING", "RUNNING": "RESUMING"}[status]
        if member.action != wanted or member.machine is None:
            return
        member.action = "NONE"
        member.machine.status = status
        if status == "RUNNING":
            member.machine.outer = "203.0.113.99"
            self.started(member.machine)

    # Changes by Google, or by others.

    def stop_machine(self, group: FakeGroup, member: FakeMember, *, repair: bool) -> None:
        """Interrupt a machine; with repair it is recreated under the same name."""
        machine = member.machine
        assert machine is not None
        machine.status = "STOPPING"
        self.stopped(machine, False)  # noqa: FBT003 - a callback

        def stopped() -> None:
            machine.status = "TERMINATED"
            if repair:
                self.recreate(group, member)

        self.after(self.pace.delete, stopped)

    def recreate(self, group: FakeGroup, member: FakeMember) -> None:
        """Replace the machine of a member by a new one of the same name."""
        if member.machine is not None:
            self.stopped(member.machine, False)  # noqa: FBT003 - a callback
            self.machines.pop((member.zone, member.name), None)
        member.action, member.machine = "RECREATING", None
        self.after(self.pace.create, lambda: self._launch(group, member))
