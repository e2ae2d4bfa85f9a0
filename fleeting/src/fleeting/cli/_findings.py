"""`fleeting check`: the findings of a provider, and whether an instance is reachable.

The text of findings is an interface for operators; `docs/operators/groups.md` lists the codes.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from fleeting._text import plain, say, say_json
from fleeting.cli._open_group import CALL_SECONDS, connect_instance, open_group
from fleeting.cli._plugin_calls import bounded, expect_type
from fleeting.errors import ConfigError, FleetingError, TransferFailed
from fleeting.types import Finding, Severity, State

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from fleeting.abc import Connection
    from fleeting.cli._open_group import OpenGroup
    from fleeting.cli._selection import GroupSelection
    from fleeting.types import Completed

__all__ = ("check_group", "finding_lines", "verdict", "worst_first")

# A provider's check may make many calls of the cloud.
CHECK_SECONDS = 300.0
COMMAND_TIMEOUT = timedelta(seconds=20)
REASON_CHARACTERS = 2000

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


async def check_group(selection: GroupSelection, *, connects: bool, as_json: bool) -> int:
    """Print all findings about a group, and return the exit code.

    Args:
        selection: the group.
        connects: whether to connect to an instance as well.
        as_json: whether to print JSON instead of text.
    """
    findings = await _ask_provider(selection)
    # Opening a group with errors would repeat one of them, with less detail.
    if connects and verdict(findings) != Severity.ERROR.value:
        increase = f"fleeting group increase 1 --wait {selection.options}"
        # An instance that ends with the command that starts it is gone when it is looked for.
        is_kept = all(one.code != "not-persistent" for one in findings)
        findings = [*findings, await _reachability(selection, increase if is_kept else "")]
    findings = worst_first(findings)
    if as_json:
        say_json(json.dumps(_document(selection, findings), default=str))
    else:
        for line in finding_lines(selection.label, findings):
            say(line)
    return 1 if verdict(findings) == Severity.ERROR.value else 0


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by severity, in their given order within each."""
    return sorted(findings, key=lambda one: _ORDER.index(one.severity))


def verdict(findings: Iterable[Finding]) -> str:
    """Return the worst severity, `error` or `warning`, or `ok` if there is neither."""
    severities = {one.severity for one in findings} - {Severity.INFO}
    return next((one.value for one in _ORDER if one in severities), "ok")


def finding_lines(label: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the findings as text; a fix of several lines is a block that can be copied."""
    for one in findings:
        yield f"{one.severity.value}: {plain(one.code)}: {plain(one.reason)[:REASON_CHARACTERS]}"
        lines = [plain(line.replace("\t", "    ")) for line in one.fix.strip("\n").splitlines()]
        if len(lines) == 1:
            yield f"    fix: {lines[0]}"
        elif lines:
            yield "    fix:"
            yield from (f"        {line}".rstrip() for line in lines)
    counts = [(sum(one.severity is kind for one in findings), kind.value) for kind in _ORDER[:2]]
    found = " and ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts if n)
    yield f"{label}: {found or 'no problems found'}"


async def _ask_provider(selection: GroupSelection) -> list[Finding]:
    async def check() -> list[Finding]:
        found = list(await selection.provider.check(selection.config, selection.settings))
        for one in found:
            expect_type(one, Finding)
        return found

    try:
        return await bounded(check(), CHECK_SECONDS, f"{selection.label} was not checked")
    except ConfigError as error:
        return [Finding(Severity.ERROR, "check-failed", problem) for problem in error.problems]
    except FleetingError as error:
        return [Finding(Severity.ERROR, "check-failed", str(error))]


async def _reachability(selection: GroupSelection, increase: str) -> Finding:
    """Open the group, and connect to an instance if one runs; else advise to `increase`."""
    with _without_warnings():
        try:
            async with open_group(selection) as group:
                return await _reach_any(group, increase)
        except ConfigError as error:
            return Finding(Severity.ERROR, "not-opened", "; ".join(error.problems))
        except FleetingError as error:
            return Finding(Severity.ERROR, "not-opened", str(error))


@contextmanager
def _without_warnings() -> Generator[None]:
    """Silence the warnings of opening a group, which repeat the provider's findings."""
    logger = logging.getLogger("fleeting")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _reach_any(group: OpenGroup, increase: str) -> Finding:
    try:
        listing = await group.list_instances()
    except FleetingError as error:
        return Finding(Severity.ERROR, "not-listed", str(error))
    running = sorted(one.id for one in listing.instances if one.state is State.RUNNING)
    if not running:
        return Finding(
            Severity.WARNING,
            "no-instance",
            "no instance is running, so no connection was tested",
            increase,
        )
    return await _reach(group, running[0])


async def _reach(group: OpenGroup, id: str) -> Finding:
    began = anyio.current_time()
    try:
        async with connect_instance(group, id) as connection:
            call = connection.run("true", timeout=COMMAND_TIMEOUT)
            completed = await bounded(call, CALL_SECONDS, f"instance {id} ran no command")
            copy_failure = await _copy_file(connection) if completed.succeeded else ""
    except (FleetingError, OSError) as error:
        return Finding(
            Severity.ERROR,
            "unreachable",
            f"instance {id} is running but cannot be used: {error}",
            "if its address, user or key is wrong, set it in [runners.autoscaler."
            "connector_config]; otherwise allow the connection in the network and on the instance",
        )
    if not completed.succeeded:
        return Finding(
            Severity.ERROR,
            "no-command",
            f"instance {id} was reached, but the command `true` {_failure(completed)} there",
            "check the user's shell and its start-up files on the instance",
        )
    if copy_failure:
        return Finding(
            Severity.WARNING,
            "no-files",
            f"instance {id} runs commands, but does not accept files: {copy_failure}",
            "enable the SFTP subsystem of its SSH server and make the user's home writable, or "
            "run no jobs that copy files",
        )
    seconds = anyio.current_time() - began
    return Finding(
        Severity.INFO,
        "reachable",
        f"instance {id} ran a command and accepted a file in {seconds:.1f} s",
    )


def _failure(completed: Completed) -> str:
    if completed.timed_out:
        return "timed out"
    if completed.status is None:
        return f"was ended by signal {completed.signal}"
    return f"exited with status {completed.status}"


async def _copy_file(connection: Connection) -> str:
    """Copy a small file to the instance, as jobs do, and remove it; return why if it fails."""
    name = f".fleeting-check-{secrets.token_hex(8)}"
    with tempfile.NamedTemporaryFile() as source:
        try:
            copying = connection.put(Path(source.name), name)
            await bounded(copying, CALL_SECONDS, "the copy did not finish")
        except TransferFailed as error:
            return str(error)
    removal = connection.run(f"rm -f {name}", timeout=COMMAND_TIMEOUT)
    await bounded(removal, CALL_SECONDS, "the copied file was not removed")
    return ""


def _document(selection: GroupSelection, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "group": selection.label,
        "plugin": selection.provider.name,
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
