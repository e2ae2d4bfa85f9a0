"""The `fleeting` command.

Everything is imported inside of `main`, so that Ctrl-C also ends an import with one word.
"""

from __future__ import annotations

__all__ = ("main",)


def main() -> None:
    """Run the command and exit with its code."""
    import sys

    try:
        from fleeting._program import run_program
        from fleeting.cli._commands import command_group

        code = run_program(command_group, "fleeting")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    sys.exit(code)
