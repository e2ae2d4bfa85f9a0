"""Finds out whether plugins can be used, by importing each in a process of its own.

Nothing that such a process does is trusted: it has a deadline, what it prints is kept only
in part, and what it reports is checked. Whatever goes wrong is one sentence.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import anyio
import msgspec

from fleeting._verify import Report
from fleeting.errors import PluginBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import ByteReceiveStream

    from fleeting._metadata import PluginEntry

__all__ = ("Plugin", "Report", "verify_plugins")

# Its kind, `provider` or `connector`, and its metadata.
Plugin: TypeAlias = "tuple[str, PluginEntry]"

# SDKs are large, and the first import after an installation compiles them.
DEADLINE = timedelta(seconds=60)
AT_ONCE = 4
REPORT_LIMIT = 2**22
TAIL_BYTES = 4096
SENTENCE_LIMIT = 500


async def verify_plugins(
    plugins: Sequence[Plugin],
    *,
    deadline: timedelta = DEADLINE,
    on_verified: Callable[[int], None] = lambda _: None,
) -> Mapping[Plugin, Report]:
    """Import plugins, a few at a time, and return what was found out about each.

    Cancelling ends the processes.

    Args:
        plugins: the kind and the metadata of each.
        deadline: how long each may take, its start included.
        on_verified: called with the number of those that are done, after each.

    Raises:
        OSError: the system refused to start a process.
    """
    reports: dict[Plugin, Report] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def verify(plugin: Plugin) -> None:
        async with limiter:
            reports[plugin] = await _verify(*plugin, deadline)
        on_verified(len(reports))

    try:
        async with anyio.create_task_group() as tasks:
            for plugin in plugins:
                tasks.start_soon(verify, plugin)
    except ExceptionGroup as errors:
        # Of what the system refuses to one, it refuses the same to the others.
        raise errors.exceptions[0] from None
    return {plugin: reports[plugin] for plugin in plugins}


async def _verify(kind: str, entry: PluginEntry, deadline: timedelta) -> Report:
    with tempfile.TemporaryDirectory(prefix="fleeting-") as folder:
        path = Path(folder, "report")
        # The path is that of this process, less the working directory, which -m would add.
        command = [sys.executable, "-P", "-m", "fleeting._verify", kind, entry.name, str(path)]
        outcome = await _run(command, deadline)
        report = _read_report(path)
    if report is not None and report.problem:
        return Report(problem=_printable(report.problem))
    reason = _reason(outcome, report, deadline)
    if report is None or reason:
        problem = str(PluginBroken(entry.name, entry.distribution, reason))
        return Report(problem=_printable(problem))
    return report


class _Outcome(msgspec.Struct, frozen=True):
    """How a process ended.

    Attributes:
        code: None if it had to be ended; negative if a signal ended it.
        printed: the end of its standard output.
        complained: the end of its standard error.
    """

    code: int | None
    printed: bytes
    complained: bytes


def _reason(outcome: _Outcome, report: Report | None, deadline: timedelta) -> str:
    """Return what is wrong with a plugin, judging by the end of the process that imported it."""
    last = outcome.complained.decode(errors="replace").strip().rpartition("\n")[2].rstrip(".")
    if outcome.code is None and report is None:
        return f"its import was not over after {deadline.total_seconds():g} s"
    if outcome.code is None:
        return "a process that has imported it does not end, perhaps for a thread that it starts"
    if outcome.code < 0:
        return f"its import crashed by {_signal_name(-outcome.code)}"
    if outcome.code or report is None:
        because = f": {last}" if last else ""
        return f"its import ended the process with exit code {outcome.code}{because}"
    if outcome.printed:
        return "its import writes to standard output, which would spoil what commands print"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read_report(path: Path) -> Report | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(REPORT_LIMIT), type=Report)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _printable(text: str) -> str:
    """Return a sentence that came from a stranger as it can be shown on a terminal."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    return line if len(line) <= SENTENCE_LIMIT else f"{line[:SENTENCE_LIMIT]}..."


async def _run(command: Sequence[str], deadline: timedelta) -> _Outcome:
    printed, complained = bytearray(), bytearray()
    async with await anyio.open_process(
        command, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            with anyio.move_on_after(deadline.total_seconds()):
                async with anyio.create_task_group() as readers:
                    readers.start_soon(_keep_tail, process.stdout, printed)
                    readers.start_soon(_keep_tail, process.stderr, complained)
                    await process.wait()
                    _end_group(process.pid)
            code = process.returncode
        finally:
            _end_group(process.pid)
    return _Outcome(code, bytes(printed), bytes(complained))


async def _keep_tail(stream: ByteReceiveStream | None, tail: bytearray) -> None:
    if stream is None:
        return
    async for data in stream:
        tail += data
        del tail[:-TAIL_BYTES]


def _end_group(leader: int) -> None:
    """End a process and what it has started."""
    # Nothing of it may be left, which macOS says in a way of its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
