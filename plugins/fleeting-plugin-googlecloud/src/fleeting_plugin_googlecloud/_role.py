"""Writes the least role with which the plugin works."""

from __future__ import annotations

from fleeting_plugin_googlecloud._commands import gcloud

__all__ = ("minimal_permissions", "role_command")


def minimal_permissions(
    *, regional: bool, keys: bool, passwords: bool, host_keys: bool
) -> list[str]:
    """Return the permissions that a configuration needs.

    Args:
        regional: whether the group is a regional one.
        keys: whether keys are written to the metadata of instances.
        passwords: whether the guest agents of Windows machines are asked for passwords.
        host_keys: whether host keys are read from guest attributes.
    """
    found = {
        "compute.instanceGroupManagers.get",
        "compute.instanceGroupManagers.update",
        "compute.instanceTemplates.get",
        "compute.instances.get",
        "compute.projects.get",
    }
    if regional:
        found.add("compute.regionOperations.get")
    else:
        found.add("compute.zoneOperations.get")
    if keys or passwords:
        found |= {"compute.instances.setMetadata", "compute.zoneOperations.get"}
    if passwords:
        found.add("compute.instances.getSerialPortOutput")
    if host_keys:
        found.add("compute.instances.getGuestAttributes")
    return sorted(found)


def role_command(project: str, permissions: list[str]) -> str:
    """Return the command that creates a role with these permissions."""
    return gcloud(
        "iam",
        "roles",
        "create",
        "fleeting",
        f"--project={project}",
        "--title=fleeting",
        f"--permissions={','.join(permissions)}",
    )
