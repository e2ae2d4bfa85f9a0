"""What `fleeting check` finds: the provider's own findings, and whether an instance is reached."""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from fleeting._text import plain
from fleeting.cli._open_group import CALL_SECONDS, bounded, expect, opened, reach
from fleeting.cli._status import list_instances
from fleeting.errors import ConfigError, FleetingError, TransferFailed
from fleeting.types import Finding, Severity, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fleeting.abc import Connection
    from fleeting.cli._open_group import Hand
    from fleeting.cli._target import Target

__all__ = ("check_group", "told", "verdict", "worst_first")

# A provider may ask a cloud many things.
CHECK_SECONDS = 300.0
COMMAND_TIMEOUT = timedelta(seconds=20)

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


async def check_group(target: Target, *, connects: bool, as_json: bool) -> int:
    """Print all findings about a group, and return the exit code.

    Args:
        target: the group.
        connects: whether an instance is to be reached, too.
        as_json: whether a program reads it.
    """
    findings = await _ask_provider(target)
    # Opening what cannot work would only say the same again, less well.
    if connects and verdict(findings) != Severity.ERROR.value:
        findings = [*findings, await _reachability(target)]
    findings = worst_first(findings)
    if as_json:
        click.echo(json.dumps(_document(target, findings), indent=2))
    else:
        for line in told(target.label, findings):
            click.echo(line)
    return 1 if verdict(findings) == Severity.ERROR.value else 0


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of their severity, and else as they were."""
    return sorted(findings, key=lambda one: _ORDER.index(one.severity))


def verdict(findings: Iterable[Finding]) -> str:
    """Return the worst severity that counts, `error` or `warning`, or else `ok`."""
    severities = {one.severity for one in findings} - {Severity.INFO}
    return next((one.value for one in _ORDER if one in severities), "ok")


def told(label: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what a person reads; a fix of several lines is a block that can be copied."""
    for one in findings:
        yield f"{one.severity.value}: {plain(one.code)}: {plain(one.reason)}"
        lines = [plain(line.replace("\t", "    ")) for line in one.fix.strip("\n").splitlines()]
        if len(lines) == 1:
            yield f"    fix: {lines[0]}"
        elif lines:
            yield "    fix:"
            yield from (f"        {line}".rstrip() for line in lines)
    counts = [(sum(one.severity is kind for one in findings), kind.value) for kind in _ORDER[:2]]
    found = " and ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts if n)
    yield f"{plain(label)}: {found or 'nothing stands in the way'}"


async def _ask_provider(target: Target) -> list[Finding]:
    async def answer() -> list[Finding]:
        found = list(await target.provider.check(target.config, target.settings))
        for one in found:
            expect(one, Finding)
        return found

    try:
        return await bounded(answer(), CHECK_SECONDS, f"{target.label} was not checked")
    except ConfigError as error:
        return [Finding(Severity.ERROR, "check-failed", problem) for problem in error.problems]
    except FleetingError as error:
        return [Finding(Severity.ERROR, "check-failed", str(error))]


async def _reachability(target: Target) -> Finding:
    """Find out whether jobs would get to an instance, if there is one to try it with."""
    # What opening warns of has been found, and is told with its fix.
    logger = logging.getLogger("fleeting")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        async with opened(target) as hand:
            return await _reach_one(hand, target.words)
    except ConfigError as error:
        return Finding(Severity.ERROR, "not-opened", "; ".join(error.problems))
    except FleetingError as error:
        return Finding(Severity.ERROR, "not-opened", str(error))
    finally:
        logger.setLevel(level)


async def _reach_one(hand: Hand, words: str) -> Finding:
    try:
        listing = await list_instances(hand)
    except FleetingError as error:
        return Finding(Severity.ERROR, "not-listed", str(error))
    running = sorted(one.id for one in listing.instances if one.state is State.RUNNING)
    if not running:
        return Finding(
            Severity.WARNING,
            "no-instance",
            "no instance runs, so it is not proven that one can be reached",
            f"fleeting group increase 1 --wait {words}",
        )
    return await _reach_this(hand, running[0])


async def _reach_this(hand: Hand, id: str) -> Finding:
    began = anyio.current_time()
    try:
        async with reach(hand, id) as connection:
            call = connection.run("true", timeout=COMMAND_TIMEOUT)
            completed = await bounded(call, CALL_SECONDS, f"instance {id} ran no command")
            uncopied = await _copy_file(connection) if completed.succeeded else ""
    except (FleetingError, OSError) as error:
        return Finding(
            Severity.ERROR,
            "unreachable",
            f"instance {id} runs and cannot be used: {error}",
            "if its address, user or key are wrong, set them in [runners.autoscaler."
            "connector_config]; else let the network and the instance accept the connection",
        )
    seconds = anyio.current_time() - began
    if uncopied:
        return Finding(
            Severity.WARNING,
            "no-files",
            f"instance {id} was reached and runs commands, but takes no files: {uncopied}",
            "let its SSH server offer the SFTP subsystem, and its user write to its home, or run "
            "no jobs that copy files",
        )
    if completed.succeeded:
        text = (
            f"instance {id} was reached, has run a command and taken a file within {seconds:.1f} s"
        )
        return Finding(Severity.INFO, "reachable", text)
    how = "took too long" if completed.timed_out else f"ended with {completed.status}"
    return Finding(
        Severity.ERROR,
        "no-command",
        f"instance {id} was reached, and the command `true` {how} there",
        "look at the user's shell and its start-up files on the instance",
    )


async def _copy_file(connection: Connection) -> str:
    """Copy a small file to the instance, as jobs do, and remove it; return why not, if so."""
    name = f".fleeting-check-{secrets.token_hex(8)}"
    with tempfile.NamedTemporaryFile() as source:
        try:
            copying = connection.put(Path(source.name), name)
            await bounded(copying, CALL_SECONDS, "the copying did not end")
        except TransferFailed as error:
            return str(error)
    removal = connection.run(f"rm -f {name}", timeout=COMMAND_TIMEOUT)
    await bounded(removal, CALL_SECONDS, "the copied file was not removed")
    return ""


def _document(target: Target, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "group": target.label,
        "plugin": target.provider.name,
        "findings": [
            {
                "severity": one.severity.value,
                "code": one.code,
                "reason": one.reason,
                "fix": one.fix,
            }
            for one in findings
        ],
        "verdict": verdict(findings),
    }
