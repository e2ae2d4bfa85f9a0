"""The `taskscaler` command.

Everything is imported inside of `main`, so that Ctrl-C also ends an import with one word.
"""

from __future__ import annotations

__all__ = ("main",)


def main() -> None:
    """Run the command and exit with its code; wrong usage is one sentence and exit code 2."""
    import sys

    try:
        from fleeting import run_program
        from taskscaler.cli._commands import command_group

        code = run_program(command_group, "taskscaler")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    sys.exit(code)
