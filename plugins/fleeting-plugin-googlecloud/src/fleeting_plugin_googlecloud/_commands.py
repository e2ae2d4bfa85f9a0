"""Writes the `gcloud` commands that messages and findings contain, ready to be pasted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleeting_plugin_googlecloud._config import GoogleConfig

__all__ = ("gcloud", "group_command", "place_arguments", "update_command")


def gcloud(*words: str) -> str:
    """Return a `gcloud` command."""
    return shlex.join(["gcloud", *words])


def place_arguments(config: GoogleConfig) -> list[str]:
    """Return the arguments that say where a group is."""
    kind = "--region" if config.is_regional else "--zone"
    return [f"{kind}={config.place}", f"--project={config.project}"]


def group_command(config: GoogleConfig, verb: str, *arguments: str) -> str:
    """Return the command that runs a verb on the group."""
    words = ["compute", "instance-groups", "managed", verb, config.name]
    return gcloud(*words, *place_arguments(config), *arguments)


def update_command(config: GoogleConfig, *arguments: str) -> str:
    """Return the command that changes the group's settings."""
    return group_command(config, "update", *arguments)
