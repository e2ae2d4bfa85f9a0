"""Finds problems that prevent the provider `local` from working; starts nothing."""

from __future__ import annotations

import os
import platform
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fleeting.types import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleeting.local._config import LocalConfig

__all__ = ("find_problems",)


def find_problems(config: LocalConfig) -> list[Finding]:
    """Return the problems of this configuration on this computer, most severe first."""
    if sys.platform == "win32":
        return [
            _error(
                "platform",
                "plugin 'local' needs Linux or macOS; Windows lacks process groups and the passing "
                "of open files between processes",
                "run it in WSL, or use another plugin",
            )
        ]
    found = [*_settings(config), *_root(config), *_shell(config), *_ports(), *_best_effort()]
    return [*found, *_lifetime(config)]


def _error(code: str, reason: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, code, reason, fix)


def _settings(config: LocalConfig) -> Iterator[Finding]:
    if config.persistent and config.root is None:
        yield _error(
            "persistent-root",
            "plugin_config.persistent: persistent instances are found again through root, which is "
            "not set",
            "set root to a directory, or persistent to false",
        )
    if config.boot_delay.total_seconds() < 0:
        yield _error(
            "boot-delay",
            f"plugin_config.boot_delay: {config.boot_delay} is negative",
            'write for example "2s"',
        )


def _root(config: LocalConfig) -> Iterator[Finding]:
    if config.root is None:
        try:
            tempfile.gettempdir()
        except FileNotFoundError:
            yield _error(
                "root",
                "plugin_config.root: it is not set, and no directory for temporary files is usable",
                "set root to a directory that you can write to",
            )
        return
    try:
        root = config.root.expanduser().absolute()
    except RuntimeError:
        yield _error(
            "root",
            f"plugin_config.root: {config.root}: there is no such user or home directory",
            "write an absolute path",
        )
        return
    existing = next(one for one in (root, *root.parents) if one.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "cannot be written to" if existing.is_dir() else "is not a directory"
        yield _error(
            "root",
            f"plugin_config.root: {root} cannot be used because {existing} {what}",
            "choose a directory that you can write to",
        )


def _shell(config: LocalConfig) -> Iterator[Finding]:
    shell = Path(config.shell)
    if (
        "\0" in config.shell
        or not shell.is_absolute()
        or not os.access(shell, os.X_OK)
        or shell.is_dir()
    ):
        yield _error(
            "shell",
            f"plugin_config.shell: {config.shell!r} is not the absolute path of a program",
            'write for example "/bin/sh"',
        )


def _ports() -> Iterator[Finding]:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        yield _error(
            "ports",
            f"plugin 'local' cannot listen on a port of 127.0.0.1 ({error.strerror})",
            "permit it, or use another plugin",
        )


def _lifetime(config: LocalConfig) -> Iterator[Finding]:
    if not config.persistent:
        yield Finding(
            Severity.INFO,
            "not-persistent",
            "instances end with the command that starts them, because persistent is false",
            "to keep them for later commands, set root to a directory and persistent to true",
        )


def _best_effort() -> Iterator[Finding]:
    if platform.system() != "Linux":
        yield Finding(
            Severity.INFO,
            "no-subreaper",
            "on this system, a process that detaches from its command's process group survives "
            "the removal of its instance",
        )
