"""The commands that change a group: `increase`, `decrease`, `suspend` and `resume`.

Each holds the lock of the group while it runs. Otherwise a manager of the group would remove
the instances that it did not ask for, and replace those that are gone.
"""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio

from fleeting._lock import driving
from fleeting._text import is_terminal, plain, say, show
from fleeting.cli._open_group import open_group
from fleeting.cli._progress import increase_progress
from fleeting.cli._status import instance_table
from fleeting.cli._streams import read_line
from fleeting.errors import GroupHeld, NotSupported, ProviderError
from fleeting.types import Accepted, Capability, Listing, State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleeting.cli._open_group import OpenGroup
    from fleeting.cli._selection import GroupSelection
    from fleeting.types import Duration, Instance

__all__ = ("decrease", "increase", "suspend_or_resume")

WAIT_INTERVAL_SECONDS = 1.0
NO_REASON = "the group gave no reason"
# An instance in these states does not come back.
ENDING = (State.FAILED, State.DELETING)


async def increase(
    selection: GroupSelection, count: int, *, force: bool, wait: Duration | None
) -> int:
    """Ask for more instances, and return the exit code.

    Args:
        selection: the group.
        count: how many.
        force: whether to go on if another process drives the group.
        wait: how long to wait until they run; None to return at once.
    """
    async with open_group(selection) as group:
        with ExitStack() as lock:
            _take(lock, group, "fleeting group increase", force=force)
            before = await group.list_instances() if wait is not None else Listing()
            operation = f"command-{uuid.uuid4().hex}"
            accepted = await group.change(
                f"confirm the increase by {count}", group.instances.increase, count, operation
            )
            _report_increase(accepted, count)
            complete = accepted.count == count
            if wait is not None and accepted.count:
                complete = await _wait(group, before, accepted, wait) and complete
            return 0 if complete else 1


async def decrease(selection: GroupSelection, ids: Sequence[str], *, force: bool, yes: bool) -> int:
    """Remove instances, and return the exit code.

    Args:
        selection: the group.
        ids: of the instances.
        force: whether to go on if another process drives the group.
        yes: whether to skip the confirmation.
    """
    ids = list(dict.fromkeys(ids))
    async with open_group(selection) as group:
        with ExitStack() as lock:
            _take(lock, group, "fleeting group decrease", force=force)
            found = await _find(group, ids)
            for line in instance_table(found) if found else ():
                say(line)
            # This includes ids that are not listed, because a listing may be out of date.
            if not yes and not await _confirmed(_question(group.id, ids, found)):
                say("nothing was removed", err=True)
                return 1
            accepted = await group.change("confirm the removal", group.instances.decrease, ids)
            return _report(accepted, ids)


async def suspend_or_resume(
    selection: GroupSelection, verb: str, ids: Sequence[str], *, force: bool, limit: Duration
) -> int:
    """Suspend instances, or start them again; wait until that is done, and return the exit code.

    It waits because a group may need several steps, and takes them one by one while this
    process drives it.

    Args:
        selection: the group.
        verb: `suspend` or `resume`.
        ids: of the instances.
        force: whether to go on if another process drives the group.
        limit: how long to wait.

    Raises:
        NotSupported: the group cannot do that.
    """
    ids = list(dict.fromkeys(ids))
    async with open_group(selection) as group:
        if Capability.SUSPEND not in group.instances.info.capabilities:
            raise NotSupported(
                f"group {group.id} cannot {verb} instances: its plugin does not support it"
            )
        with ExitStack() as lock:
            _take(lock, group, f"fleeting group {verb}", force=force)
            await _find(group, ids)
            method = group.instances.suspend if verb == "suspend" else group.instances.resume
            accepted = await group.change(f"confirm the {verb} request", method, ids)
            code = _report(accepted, ids)
            goal = State.SUSPENDED if verb == "suspend" else State.RUNNING
            return await _arrive(group, set(accepted.ids) & set(ids), goal, limit) or code


def _take(lock: ExitStack, group: OpenGroup, purpose: str, *, force: bool) -> None:
    if group.instances.info.private:
        group.drives = True  # No other process can open it.
        return
    try:
        lock.enter_context(driving(group.id, purpose))
        group.drives = True
    except GroupHeld as held:
        if not force:
            advice = "stop that process first, or use --force (it may then undo the change)"
            raise GroupHeld(held.id, held.holder, advice) from None
        holder = held.holder or "another process"
        say(f"warning: group {group.id} is driven by {holder}", err=True)


async def _find(group: OpenGroup, ids: Sequence[str]) -> list[Instance]:
    """Return those of the instances that are listed, and report the others."""
    known = {one.id: one for one in (await group.list_instances()).instances}
    for id in ids:
        if id not in known:
            say(f"group {group.id} does not list instance {id}", err=True)
    return [known[id] for id in ids if id in known]


def _report_increase(accepted: Accepted, count: int) -> None:
    ids = f": {' '.join(accepted.ids)}" if accepted.ids else ""
    say(f"accepted: {accepted.count} of {count}{ids}")
    if accepted.count < count:
        reason = str(accepted.error or NO_REASON)
        say(f"not accepted: {count - accepted.count}: {reason}", err=True)


def _report(accepted: Accepted, ids: Sequence[str]) -> int:
    wanted = set(ids)
    taken = wanted & set(accepted.ids)
    say(f"accepted: {len(taken)} of {len(wanted)}")
    if taken == wanted:
        return 0
    reason = str(accepted.error or NO_REASON)
    refused = " ".join(sorted(wanted - taken))
    say(f"not accepted: {refused}: {reason}", err=True)
    return 1


def _question(group: str, ids: Sequence[str], found: Sequence[Instance]) -> str:
    unlisted = len(ids) - len(found)
    which = f" ({unlisted} not listed)" if unlisted else ""
    noun = "instance" if len(ids) == 1 else "instances"
    return f"Remove {len(ids)} {noun}{which} from group {plain(group)}?"


async def _confirmed(question: str) -> bool:
    """Ask for confirmation; not with click, which would block the loop, and Ctrl-C with it."""
    show(f"{question} [y/N] ", err=True)
    return (await read_line()).strip().lower() in {"y", "yes"}


async def _wait(group: OpenGroup, before: Listing, accepted: Accepted, limit: Duration) -> bool:
    """Wait until each accepted instance runs or has failed; return whether all of them run."""
    progress = increase_progress(before, accepted, Listing(pending=accepted.count))
    try:
        with anyio.move_on_after(limit.total_seconds()):
            while True:
                if listing := await _listing_if_available(group):
                    await _reconcile(group, listing)
                    progress = increase_progress(before, accepted, listing, progress.failures)
                if not progress.missing:
                    break
                _show(f"{len(progress.running)} of {accepted.count} instances running")
                await anyio.sleep(WAIT_INTERVAL_SECONDS)
    finally:
        _show("")
    for id in progress.running:
        say(f"running: {id}")
    for one in progress.failed:
        say(f"failed: {one.id}: {one.reason or one.state.value}", err=True)
    for failure in progress.failures:
        say(f"failed: {failure.error}", err=True)
    if progress.missing:
        say(f"not running after {limit}: {progress.missing}; see `fleeting group status`", err=True)
    return len(progress.running) >= accepted.count


async def _arrive(group: OpenGroup, ids: Collection[str], goal: State, limit: Duration) -> int:
    """Wait until instances are in a state, and return the exit code.

    An instance that cannot get there returns to its old state, which takes a while, too.
    """
    waiting, lost, refused = set(ids), False, False
    try:
        with anyio.move_on_after(limit.total_seconds()):
            while True:
                if listing := await _listing_if_available(group):
                    refused = await _reconcile(group, listing) or refused
                    found = {one.id: one for one in listing.instances}
                    resting = {State.SUSPENDED, State.RUNNING} if refused else {goal}
                    for id in sorted(waiting):
                        one = found.get(id)
                        if one is None or one.state in ENDING or one.state in resting:
                            waiting.remove(id)
                            lost = not _report_end(id, one, goal) or lost
                if not waiting:
                    break
                _show(f"{len(ids) - len(waiting)} of {len(ids)} instances {goal.value}")
                await anyio.sleep(WAIT_INTERVAL_SECONDS)
    finally:
        _show("")
    if waiting:
        names = " ".join(sorted(waiting))
        say(f"not {goal.value} after {limit}: {names}; repeat the command to go on", err=True)
    return 1 if waiting or lost else 0


def _report_end(id: str, instance: Instance | None, goal: State) -> bool:
    """Report how far an instance came; return whether it is where it should be."""
    if instance is not None and instance.state is goal:
        say(f"{goal.value}: {id}")
        return True
    reason = "it is gone" if instance is None else instance.reason or instance.state.value
    say(f"failed: {id}: {reason}", err=True)
    return False


async def _reconcile(group: OpenGroup, listing: Listing) -> bool:
    """Take the steps that follow from a listing; return whether some are refused for good."""
    try:
        await group.reconcile(listing)
    except ProviderError as error:
        say(f"warning: {error}", err=True)
        return not error.retryable
    return False


async def _listing_if_available(group: OpenGroup) -> Listing | None:
    """Return the listing, or None if a later attempt may succeed."""
    try:
        return await group.list_instances()
    except ProviderError as error:
        if not error.retryable:
            raise
        return None


def _show(text: str) -> None:
    """Draw the line that shows the progress, if standard error is a terminal."""
    if is_terminal(err=True):
        show(f"\r\x1b[K{text}", err=True)
