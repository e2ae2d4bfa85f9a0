"""What changes a group by hand: `fleeting group increase`, `decrease`, `suspend` and `resume`.

Each takes the lock of the group for as long as it runs, so that it does not happen behind
the back of a manager, which would take what it did not ask for away, or replace what is gone.
"""

from __future__ import annotations

import sys
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import click

from fleeting._lock import driving
from fleeting._text import plain
from fleeting.cli._open_group import opened
from fleeting.cli._status import instance_table, list_instances
from fleeting.cli._streams import read_line
from fleeting.errors import GroupHeld, NotSupported, ProviderError
from fleeting.types import Accepted, Capability, Listing, State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleeting.cli._open_group import Hand
    from fleeting.cli._target import Target
    from fleeting.types import Duration, Instance

__all__ = ("Growth", "decrease", "growth", "increase", "suspend_or_resume")

WAIT_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Growth:
    """What has become of an accepted increase.

    Attributes:
        running: ids of new instances that run.
        lost: new ones that will not: they have failed.
        coming: how many are still to come.
        failures: why requests are not carried out after all, for people.
    """

    running: tuple[str, ...]
    lost: tuple[Instance, ...]
    coming: int
    failures: tuple[str, ...] = ()


def growth(
    before: Collection[str], accepted: Accepted, listing: Listing, failures: Sequence[str] = ()
) -> Growth:
    """Return what has become of an increase, according to a listing.

    Args:
        before: the ids that there were.
        accepted: the increase.
        listing: what there is now.
        failures: those that earlier listings reported, each once.
    """
    mine = set(accepted.ids) if accepted.ids else None
    new = [
        one
        for one in listing.instances
        if one.id not in before and (mine is None or one.id in mine)
    ]
    running = tuple(sorted(one.id for one in new if one.state is State.RUNNING))
    lost = tuple(one for one in new if one.state in {State.FAILED, State.DELETING})
    told = (*failures, *(str(one) for one in listing.failures))
    # A failure tells of no number: what is not there and not pending will not come.
    gone = len(lost)
    if told and listing.pending == 0:
        gone = max(gone, accepted.count - len(new) + len(lost))
    return Growth(running, lost, max(0, accepted.count - len(running) - gone), told)


async def increase(
    target: Target,
    count: int,
    *,
    force: bool,
    wait: Duration | None,
) -> int:
    """Ask for more instances, and return the exit code.

    Args:
        target: the group.
        count: how many.
        force: whether a manager that drives the group is no obstacle.
        wait: how long to wait until they run; None is not at all.
    """
    async with opened(target) as hand:
        with ExitStack() as lock:
            _take(lock, hand, "fleeting group increase", force=force)
            listing = await list_instances(hand) if wait is not None else Listing()
            before = {one.id for one in listing.instances}
            operation = f"hand-{uuid.uuid4().hex}"
            what = f"answer whether it takes {count} more"
            accepted = await hand.ask(what, Accepted, hand.group.increase, count, operation)
            _tell(accepted, count, "more")
            if wait is None or not accepted.count:
                return 0 if accepted.count == count else 1
            done = await _wait(hand, before, accepted, wait)
            return 0 if done and accepted.count == count else 1


async def decrease(target: Target, ids: Sequence[str], *, force: bool, yes: bool) -> int:
    """Remove instances, and return the exit code.

    Args:
        target: the group.
        ids: of the instances.
        force: whether a manager that drives the group is no obstacle.
        yes: whether nobody is to be asked.
    """
    ids = list(dict.fromkeys(ids))
    async with opened(target) as hand:
        with ExitStack() as lock:
            _take(lock, hand, "fleeting group decrease", force=force)
            found = await _find(hand, ids)
            for line in instance_table(found) if found else ():
                click.echo(line)
            # Also those that are not listed: a listing may be behind the times.
            if not yes and not await _agreed(_question(hand.id, ids, found)):
                click.echo("nothing was removed", err=True)
                return 1
            what = "answer whether it removes them"
            accepted = await hand.ask(what, Accepted, hand.group.decrease, ids)
            return _conclude(accepted, ids, "removed")


async def suspend_or_resume(target: Target, verb: str, ids: Sequence[str], *, force: bool) -> int:
    """Stop instances for a while, or start them again, and return the exit code.

    Args:
        target: the group.
        verb: `suspend` or `resume`.
        ids: of the instances.
        force: whether a manager that drives the group is no obstacle.

    Raises:
        NotSupported: the group cannot do that.
    """
    ids = list(dict.fromkeys(ids))
    async with opened(target) as hand:
        if Capability.SUSPEND not in hand.group.info.capabilities:
            raise NotSupported(f"group {hand.id} cannot {verb} instances; remove them instead")
        with ExitStack() as lock:
            _take(lock, hand, f"fleeting group {verb}", force=force)
            await _find(hand, ids)
            call = hand.group.suspend if verb == "suspend" else hand.group.resume
            accepted = await hand.ask(f"answer whether it {verb}s them", Accepted, call, ids)
            return _conclude(accepted, ids, f"{verb.removesuffix('e')}ed")


def _take(lock: ExitStack, hand: Hand, purpose: str, *, force: bool) -> None:
    try:
        lock.enter_context(driving(hand.id, purpose))
    except GroupHeld as held:
        if not force:
            advice = "stop that one first, or repeat this with --force and expect it to object"
            raise GroupHeld(held.id, held.holder, advice) from None
        click.echo(
            f"warning: group {plain(hand.id)} is driven by {held.holder or 'another process'}",
            err=True,
        )


async def _find(hand: Hand, ids: Sequence[str]) -> list[Instance]:
    """Return those of the instances that are listed, and say which are not."""
    known = {one.id: one for one in (await list_instances(hand)).instances}
    for id in ids:
        if id not in known:
            click.echo(f"group {plain(hand.id)} lists no instance {plain(id)}", err=True)
    return [known[id] for id in ids if id in known]


def _tell(accepted: Accepted, count: int, what: str) -> None:
    ids = f": {' '.join(map(plain, accepted.ids))}" if accepted.ids else ""
    click.echo(f"accepted: {accepted.count} of {count} {what}{ids}")
    if accepted.count < count:
        reason = plain(str(accepted.error)) if accepted.error else "the group does not say why"
        click.echo(f"not accepted: {count - accepted.count}: {reason}", err=True)


def _conclude(accepted: Accepted, ids: Sequence[str], what: str) -> int:
    wanted = set(ids)
    taken = wanted & set(accepted.ids)
    click.echo(f"accepted: {len(taken)} of {len(wanted)} to be {what}")
    if taken == wanted:
        return 0
    reason = plain(str(accepted.error)) if accepted.error else "the group does not say why"
    left = " ".join(plain(id) for id in sorted(wanted - taken))
    click.echo(f"not accepted: {left}: {reason}", err=True)
    return 1


def _question(group: str, ids: Sequence[str], found: Sequence[Instance]) -> str:
    what = "this instance" if len(ids) == 1 else f"these {len(ids)} instances"
    unlisted = len(ids) - len(found)
    which = f" ({unlisted} not listed)" if unlisted else ""
    return f"remove {what}{which} of group {plain(group)}?"


async def _agreed(question: str) -> bool:
    """Ask a person. Not with click, which would hear no Ctrl-C while the loop waits for it."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    return (await read_line()).strip().lower() in {"y", "yes"}


async def _wait(hand: Hand, before: Collection[str], accepted: Accepted, limit: Duration) -> bool:
    """Wait until all that was accepted runs, or will not; return whether all of it does."""
    now = growth(before, accepted, Listing(pending=accepted.count))
    try:
        with anyio.move_on_after(limit.total_seconds()):
            while True:
                if listing := await _listed(hand):
                    now = growth(before, accepted, listing, now.failures)
                if not now.coming:
                    break
                _show(f"{len(now.running)} of {accepted.count} run, {now.coming} to come")
                await anyio.sleep(WAIT_INTERVAL_SECONDS)
    finally:
        _show("")
    for id in now.running:
        click.echo(f"running: {plain(id)}")
    for one in now.lost:
        click.echo(f"failed: {plain(one.id)}: {plain(one.reason or one.state.value)}", err=True)
    for failure in now.failures:
        click.echo(f"failed: {plain(failure)}", err=True)
    if now.coming:
        click.echo(
            f"not running after {limit}: {now.coming}; see `fleeting group status`", err=True
        )
    return len(now.running) >= accepted.count


async def _listed(hand: Hand) -> Listing | None:
    """Return the listing; None if it can be had later, because what was asked for is coming."""
    try:
        return await list_instances(hand)
    except ProviderError as error:
        if not error.retryable:
            raise
        return None


def _show(text: str) -> None:
    """Draw the one line that says how far it is, where somebody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)
