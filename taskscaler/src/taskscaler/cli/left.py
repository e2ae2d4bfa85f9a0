"""Names the instances that are left when a run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fleeting.types import GroupInfo
    from taskscaler._summaries import InstanceSummary

__all__ = ("kept_lines",)


def kept_lines(
    left: Iterable[InstanceSummary], groups: Iterable[GroupInfo], state: Path | None
) -> list[str]:
    """Return what the operator has to know of the instances that stay, as configured.

    Args:
        left: the instances that exist.
        groups: the open groups.
        state: the file in which the next run finds them; None without one.
    """
    # The instances of a temporary group end with it.
    ending = {group.id for group in groups if group.temporary}
    kept = [one for one in left if one.group not in ending]
    # Without a state file, the next run does not know them.
    remedy = "the next run removes it, or" if state else "remove it by"
    # These serve no further job, so no later run may find them by itself.
    lines = [
        f"warning: instance {one.group}/{one.id} is not removed yet and may cost money "
        f"({one.removal_reason}); {remedy} `fleeting group decrease {one.id}`"
        for one in kept
        if one.removal_reason is not None
    ]
    count = sum(one.removal_reason is None for one in kept)
    if count:
        were, them = ("was", "it") if count == 1 else ("were", "them")
        were = f"{counted(count, 'instance')} {were}"
        next_run = f"finds {them} in {state}" if state else f"will not find {them} without --state"
        lines.append(f"{were} kept (delete_instances_on_shutdown = false); the next run {next_run}")
    return lines
