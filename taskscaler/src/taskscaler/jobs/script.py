"""The commands that carry a script to an instance and start it; text only, no I/O.

A job's script and environment may contain secrets, and every user of an instance
can read its command lines. So the command line contains only the name of a
directory; script and environment are sent through standard input:

1. The shell creates the job's private directory, with the working directory in it.
2. It reads one line of its input with the builtin `read`, which never reads past
   the end of the line, and writes the script with the builtin `printf` to a file
   that only its owner can read.
3. It runs this file with another shell in the working directory. The rest of the input
   belongs to the script. Before and after, it writes the marks of `framing`, which prove
   that the script began and how it ended.

The login shell may be of any kind, so it only replaces itself with a POSIX shell. That
shell survives the signals that end the script: it has to report the end. If the connection
breaks within the line, `read` fails and nothing is run. The line starts with `#`: a shell
that a start-up file puts in our place would read it as a command, and finds a comment.

A process that a job leaves behind could read the files of the next job. So the shell ends with a
signal that kills its whole group, once it has reported the end of the script. Processes that left
the group are found by a variable in their environment, where the system shows that (`/proc`), when
the directory of the job is removed.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from taskscaler.jobs.framing import marks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = (
    "BOOTSTRAP_STATUS",
    "MARK",
    "REMOVAL",
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
# The first command of the script: the shell has opened the file, and no other job can read the
# secrets in it any more.
REMOVAL = "rm -f ../script || :; "
# The variable that marks the processes of a job; its value is the name of the job's directory.
MARK = "TASKSCALER_JOB"
# How often to look for marked processes: each look can find those that the last one missed.
_ROUNDS = " ".join("123456789")
# This shell and the processes above it, up to the SSH server.
_FIND_OURS = (
    'p=$$; k=; while [ "${p:-1}" -gt 1 ]; do k="$k $p "; '
    'p=$(sed -n "s/^PPid:[^0-9]*//p" /proc/$p/status); done 2>/dev/null; '
)
# All other processes of the user. If the server has started one for files, it starts another one.
_FIND_OTHERS = (
    "l=; for q in /proc/[0-9]*; do [ -O $q ] || continue; "
    'case "$k" in *" ${q#/proc/} "*) ;; *) l="$l $q";; esac; done'
)
# A signal reaches the whole group of processes. The shell that reports the end must see it.
_SURVIVED = "HUP INT QUIT TERM USR1 USR2 PIPE ALRM"


def directory_name(run_id: str, number: int, name: str) -> str:
    """Return the name of a job's directory in the user's home; it needs no quoting in any shell."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_NAME_LENGTH]
    return f".taskscaler-{run_id}-{number}-{safe}"


def working_directory(directory: str) -> str:
    """Return the directory in which the script runs; its parent holds our own files."""
    return f"{directory}/work"


def make_directory(directory: str) -> str:
    """Return the command that creates a job's directories; it fails if they exist."""
    return f"umask 077; exec mkdir {directory} {working_directory(directory)}"


def bootstrap(directory: str, token: str, *, exists: bool) -> str:
    """Return the command that reads a line made by `script_line` and runs its script.

    Args:
        directory: from `directory_name`.
        token: of the marks that it writes to standard error.
        exists: whether the directories exist already.
    """
    begin, end, failed = marks(token)
    # The same subshell prints the umask and then runs `mkdir`, which saves a fork.
    making = "umask" if exists else f"umask; {make_directory(directory)}"
    # The names of the variables are unusual, because assigning to an exported one changes the
    # environment of the script. A shell writes a message when its child was terminated; its
    # standard error is not the script's. Most shells need a subshell for that.
    body = (
        f"_u=$({making}) && IFS= read -r _s && umask 077 "
        f'&& printf %b "${{_s#?}}" >{directory}/script && umask $_u '
        f"&& cd {working_directory(directory)} "
        f"|| {{ {failed} >&2; exit {BOOTSTRAP_STATUS}; }}; "
        f"exec 9>&2 2>/dev/null; trap : {_SURVIVED}; {begin} >&9; "
        f"(exec 2>&9 9>&-; export {MARK}={directory}; exec sh -e ../script); _s=$?; {end} >&9; "
        # It leads its group, unless the server starts commands differently; then nothing happens.
        "kill -s KILL -- -$$; exit $_s"
    )
    # Within its quotes there is no quote, newline or exclamation mark.
    return f"exec /bin/sh -c '{body}'"


def script_line(script: Sequence[str], env: Mapping[str, str]) -> bytes:
    """Return script and environment as one line, which `printf %b` expands.

    The variables are set on the first line of the file, together with the first line
    of the script. So the line numbers in the shell's messages are those of the script
    (unless a value has several lines).
    """
    exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in env.items())
    text = REMOVAL + exports + "\n".join(script) + "\n"
    line = text.replace("\\", "\\\\").replace("\n", "\\n")
    return b"#" + line.encode(errors="surrogateescape") + b"\n"


def command_line(words: Sequence[str]) -> str:
    """Return the words of a command as one line of a script, quoted for the shell."""
    return shlex.join(words)


def remove_directories(directories: Sequence[str], *, owns_user: bool = False) -> str:
    """Return the command that removes the directories of ended jobs, and ends what they left.

    Some tools leave directories that their owner may not write to; these need `chmod` first.

    Args:
        directories: from `directory_name`.
        owns_user: whether the user of the connection belongs to these jobs alone. Then all its
            processes are ended, except those of the connection itself.
    """
    names = " ".join(directories)
    # The number in the name is unique, so no name is the beginning of another one.
    marks = " ".join(f"-e {MARK}={directory}" for directory in directories)
    find = _FIND_OTHERS if owns_user else f"l=$(grep -lsF {marks} /proc/[0-9]*/environ)"
    body = (
        f"{_FIND_OURS if owns_user else ''}"
        f'for i in {_ROUNDS}; do {find}; [ "$l" ] || break; '
        "for p in $l; do p=${p%/environ}; kill -s KILL ${p#/proc/}; done; done 2>/dev/null; "
        f"rm -rf -- {names} 2>/dev/null || {{ chmod -R u+rwx -- {names}; exec rm -rf -- {names}; }}"
    )
    return f"exec /bin/sh -c '{body}'"
