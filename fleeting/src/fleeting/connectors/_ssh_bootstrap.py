"""How a command's environment and working directory reach the instance.

An SSH server accepts hardly any variables by itself (`AcceptEnv`), and every user
of the instance can read a command line. So a command that needs either is started by
a small constant script. The script reads a header from its standard input and evaluates
it: the header changes the directory, exports the variables, and replaces the script by
the user's shell with the command. `read` of a POSIX shell consumes no byte beyond the end
of a line, so everything after the header is the command's own input. The header is
evaluated only when its last line has arrived: a connection that breaks before that
starts nothing.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# This line means the same to every login shell: within its quotes there is no quote, newline or
# exclamation mark (fish and csh treat those specially).
BOOTSTRAP = (
    "exec /bin/sh -c '"
    '_n=$(printf "\\012x"); _n=${_n%x}; _h=; IFS= read -r _e || exit 1; '
    "while IFS= read -r _l; do "
    'if [ "$_l" = "$_e" ]; then eval "$_h"; exit 1; fi; _h=$_h$_l$_n; '
    "done; exit 1'"
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a command.

    Attributes:
        line: the command line for the user's login shell; None to run the login shell itself.
        header: sent to its standard input first; may be empty.
        token: the first and last line of the header.
    """

    line: str | None
    header: bytes = b""
    token: str = ""


def prepare(
    command: str, env: Mapping[str, str] | None, cwd: str | None, *, announced: bool
) -> Launch:
    """Decide how to start a command; one that needs no header is sent unchanged.

    Args:
        command: the command line.
        env: variables to add.
        cwd: the directory to start in.
        announced: whether it writes its process id to stderr first, after the token.

    Raises:
        ValueError: the name of a variable is invalid, or a string contains a NUL.
    """
    env = env or {}
    for name in env:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a valid variable name; use letters, digits and underscores, and "
                "do not start with a digit"
            )
    if any("\0" in text for text in (command, cwd or "", *env.values())):
        raise ValueError("a command, a directory or the value of a variable contains a NUL")
    if not env and cwd is None and not announced:
        return Launch(command)
    # Saved first, because the variables can include one of this name.
    lines = ['set -- "${SHELL:-/bin/sh}"']
    if announced:
        lines.append('echo "$_e $$" >&2')
    if cwd is not None:
        # The prefix prevents `cd` from interpreting "-" or consulting $CDPATH.
        lines.append(f"cd {_quoted(cwd if cwd.startswith('/') else './' + cwd)} || exit 1")
    lines += [f"export {name}={_quoted(value)}" for name, value in env.items()]
    lines.append(f'exec "$1" -c {_quoted(command)}')
    # Random, so that no value can contain this line.
    token = secrets.token_hex(16)
    header = "\n".join([token, *lines, token, ""])
    return Launch(BOOTSTRAP, header.encode("utf-8", "surrogateescape"), token)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
