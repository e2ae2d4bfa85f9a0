"""How a script gets to an instance and starts there: text only, nothing happens here.

A job's script and environment hold secrets, and the command lines of an
instance are open to everybody on it. So the command line is the same for every
job but for the name of a directory, and all else comes through standard input:

1. the shell makes the job's private directory, with the working directory in it;
2. it reads one line of its input with its builtin `read`, which never reads
   past the end of the line, and writes what it says with its builtin `printf`
   into a file that nobody else may read;
3. it becomes (`exec`) the shell that runs that file in the working directory,
   and the rest of the input is the script's own.

A connection that breaks in the middle of the line leaves a `read` that fails,
and nothing is run. What fails before 3 ends with `BOOTSTRAP_STATUS` and with a
random word on standard error, so that no script can be mistaken for it.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = (
    "BOOTSTRAP_STATUS",
    "bootstrap",
    "command_line",
    "directory_name",
    "make_directory",
    "remove_directories",
    "script_line",
    "working_directory",
)

BOOTSTRAP_STATUS = 125
_NAME_LENGTH = 60


def directory_name(run_id: str, number: int, name: str) -> str:
    """Return the name of a job's directory in the user's home, safe in any shell."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_NAME_LENGTH]
    return f".taskscaler-{run_id}-{number}-{safe}"


def working_directory(directory: str) -> str:
    """Return where the script runs: the directory itself holds what is ours."""
    return f"{directory}/work"


def make_directory(directory: str) -> str:
    """Return the command that makes a job's directories; it fails if they exist."""
    return f"umask 077; exec mkdir {directory} {working_directory(directory)}"


def bootstrap(directory: str, marker: str, *, exists: bool) -> str:
    """Return the command that reads a line made by `script_line` and becomes its script.

    Args:
        directory: from `directory_name`.
        marker: what to write on standard error if it does not come to that.
        exists: whether the directories are there already.
    """
    # One fork serves both: the umask is asked for where `mkdir` is then run.
    making = "umask" if exists else f"umask; {make_directory(directory)}"
    return (
        f"u=$({making}) && IFS= read -r s && umask 077 "
        f'&& printf %b "$s" >{directory}/script && umask $u '
        f"&& cd {working_directory(directory)} && exec sh -e ../script; "
        f"echo {marker} >&2; exit {BOOTSTRAP_STATUS}"
    )


def script_line(script: Sequence[str], env: Mapping[str, str]) -> bytes:
    """Return script and environment as one line, for `printf %b` to unfold.

    The variables are set in the first line of the file, together with the first
    line of the script, so that the shell's messages name the lines as the user
    counts them (unless a value has several lines).
    """
    exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in env.items())
    text = exports + "\n".join(script) + "\n"
    return text.replace("\\", "\\\\").replace("\n", "\\n").encode(errors="surrogateescape") + b"\n"


def command_line(words: Sequence[str]) -> str:
    """Return words as one line of a script that runs exactly them."""
    return shlex.join(words)


def remove_directories(directories: Sequence[str]) -> str:
    """Return the command that removes the directories of ended jobs.

    Some tools leave folders behind that forbid their owner to empty them.
    """
    names = " ".join(directories)
    return (
        f"rm -rf -- {names} 2>/dev/null || {{ chmod -R u+rwx -- {names}; exec rm -rf -- {names}; }}"
    )
