"""Checks whether plugins can be used, by importing each in a separate process.

The process is not trusted: it has a deadline, only the end of its output is kept, and its
report is checked. Every failure is reported in one sentence.
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

from fleeting._plugin_report import PluginReport
from fleeting._regular_files import open_regular
from fleeting._text import foreign
from fleeting.errors import PluginBroken, ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import ByteReceiveStream

    from fleeting._metadata import PluginEntry

__all__ = ("DEADLINE", "Plugin", "PluginReport", "survive_import", "verify_plugins")

# The kind, `provider` or `connector`, and the metadata.
Plugin: TypeAlias = "tuple[str, PluginEntry]"

# The first import after an installation compiles the plugin's libraries, which may be large.
DEADLINE = timedelta(seconds=60)
CONCURRENCY = 4
REPORT_LIMIT = 2**22
TAIL_BYTES = 4096


async def verify_plugins(
    plugins: Sequence[Plugin],
    *,
    deadline: timedelta = DEADLINE,
    on_verified: Callable[[int], None] = lambda _: None,
) -> Mapping[Plugin, PluginReport]:
    """Import plugins, a few at a time, and return a report about each.

    Cancelling kills the processes.

    Args:
        plugins: the kind and the metadata of each.
        deadline: how long each may take, including the start of the process.
        on_verified: called after each plugin with the number of finished ones.

    Raises:
        OSError: a process could not be started.
    """
    reports: dict[Plugin, PluginReport] = {}
    limiter = anyio.CapacityLimiter(CONCURRENCY)

    async def verify(plugin: Plugin) -> None:
        async with limiter:
            reports[plugin] = await _verify(*plugin, deadline)
        on_verified(len(reports))

    try:
        async with anyio.create_task_group() as tasks:
            for plugin in plugins:
                tasks.start_soon(verify, plugin)
    except ExceptionGroup as errors:
        # If one process cannot be started, neither can the others.
        raise errors.exceptions[0] from None
    return {plugin: reports[plugin] for plugin in plugins}


async def survive_import(kind: str, entry: PluginEntry, deadline: timedelta) -> None:
    """Import a plugin in another process, before this one does.

    An import may hang, crash, or end its process. An exception is left to the import that
    follows, which reports it with all details.

    Raises:
        PluginBroken: this process would not survive the import.
        ProviderError: the import took too long.
        OSError: no process could be started.
    """
    ended, report = await _import(kind, entry, deadline, "--only-import")
    if report is None and ended.code is None:
        raise ProviderError(
            f"plugin {entry.name!r} of {entry.distribution} was not imported within "
            f"{deadline.total_seconds():g} s; try again, or report this to its author"
        )
    if report is None:
        reason = _reason(ended, report, deadline)
        raise PluginBroken(entry.name, entry.distribution, foreign(reason))


async def _verify(kind: str, entry: PluginEntry, deadline: timedelta) -> PluginReport:
    ended, report = await _import(kind, entry, deadline)
    if report is not None and report.problem:
        return PluginReport(problem=foreign(report.problem))
    reason = _reason(ended, report, deadline)
    if report is None or reason:
        problem = str(PluginBroken(entry.name, entry.distribution, reason))
        return PluginReport(problem=foreign(problem))
    return report


async def _import(
    kind: str, entry: PluginEntry, deadline: timedelta, *options: str
) -> tuple[_ImportProcess, PluginReport | None]:
    with tempfile.TemporaryDirectory(prefix="fleeting-") as folder:
        path = Path(folder, "report")
        # -P: like this process, without the working directory that -m would add to the path.
        command = [sys.executable, "-P", "-m", "fleeting._plugin_report"]
        ended = await _run([*command, kind, entry.name, str(path), *options], deadline)
        return ended, _read_report(path)


class _ImportProcess(msgspec.Struct, frozen=True):
    """How the process that imported a plugin ended.

    Attributes:
        code: its exit code; None if it had to be killed; negative if a signal ended it.
        stderr: the end of its standard error.
    """

    code: int | None
    stderr: bytes


def _reason(ended: _ImportProcess, report: PluginReport | None, deadline: timedelta) -> str:
    """Return why a plugin cannot be used, by how its process ended; empty if it can."""
    last = foreign(ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]).rstrip(".")
    if ended.code is None and report is None:
        return f"its import took longer than {deadline.total_seconds():g} s"
    if ended.code is None:
        return "the process that imported it does not exit, perhaps because it starts a thread"
    if ended.code < 0:
        return f"its import crashed with {_signal_name(-ended.code)}"
    if ended.code or report is None:
        because = f": {last}" if last else ""
        return f"its import ended the process with exit code {ended.code}{because}"
    return ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read_report(path: Path) -> PluginReport | None:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return msgspec.json.decode(file.read(REPORT_LIMIT), type=PluginReport)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


async def _run(command: Sequence[str], deadline: timedelta) -> _ImportProcess:
    stderr = bytearray()
    async with await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            with anyio.move_on_after(deadline.total_seconds()):
                async with anyio.create_task_group() as readers:
                    readers.start_soon(_keep_tail, process.stderr, stderr)
                    await process.wait()
                    _kill_group(process.pid)
            code = process.returncode
        finally:
            _kill_group(process.pid)
    return _ImportProcess(code, bytes(stderr))


async def _keep_tail(stream: ByteReceiveStream | None, tail: bytearray) -> None:
    if stream is None:
        return
    async for data in stream:
        tail += data
        del tail[:-TAIL_BYTES]


def _kill_group(leader: int) -> None:
    """Kill a process and those that it has started."""
    # The group may be empty by now; macOS reports that as a PermissionError.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
