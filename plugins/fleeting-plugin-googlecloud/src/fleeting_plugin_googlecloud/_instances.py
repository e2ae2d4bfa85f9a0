"""Reads Google's description of an instance: its platform, addresses and metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting.errors import InstanceUnhealthy
from fleeting.types import ConnectInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting.types import ConnectorSettings

__all__ = (
    "USER",
    "connect_info_of",
    "instance_addresses",
    "is_true",
    "metadata_of",
    "pushes_keys",
    "require_running",
    "with_metadata",
)

# The user that the guest agent makes for us. With the name of a user of the image, the agent
# would take that user's rights away together with the last key.
USER = "fleeting"

_NOTHING: Mapping[str, Any] = {}
_ARCHITECTURES = {"X86_64": "amd64", "ARM64": "arm64"}


def pushes_keys(settings: ConnectorSettings, os: str) -> bool:
    """Return whether a key is pushed to an instance with this operating system."""
    static = settings.use_static_credentials or settings.password is not None
    return os != "windows" and settings.protocol in {None, "ssh"} and not static


def is_true(value: object) -> bool:
    """Return whether a metadata value switches something on, as the guest agent reads it."""
    return str(value).strip().lower() in {"true", "1", "y", "yes"}


def metadata_of(description: Mapping[str, Any], name: str = "metadata") -> dict[str, str]:
    """Return the metadata of an instance, a project or a template."""
    items = description.get(name, {}).get("items", ())
    return {str(one.get("key", "")): str(one.get("value", "")) for one in items}


def with_metadata(description: Mapping[str, Any], key: str, value: str) -> dict[str, Any]:
    """Return all metadata of an instance with one value changed, as the SDK takes it.

    The fingerprint is that of the metadata as read, so Google refuses the write if another
    client has written meanwhile.
    """
    metadata = description.get("metadata", {})
    items = [dict(one) for one in metadata.get("items", ()) if one.get("key") != key]
    return {
        "fingerprint": metadata.get("fingerprint", ""),
        "items": [*items, {"key": key, "value": value}],
    }


def instance_addresses(description: Mapping[str, Any]) -> tuple[str, str]:
    """Return the internal and the external address of an instance; empty if it has none.

    They are those of its first network interface.
    """
    interface = next(iter(description.get("networkInterfaces", ())), _NOTHING)
    outer: str = next(
        (one["natIP"] for one in interface.get("accessConfigs", ()) if one.get("natIP")), ""
    )
    outer_v6: str = next(
        (
            one["externalIpv6"]
            for one in interface.get("ipv6AccessConfigs", ())
            if one.get("externalIpv6")
        ),
        "",
    )
    inner = interface.get("networkIP") or interface.get("ipv6Address") or outer_v6
    return str(inner), str(outer or outer_v6)


def _boot_disk(description: Mapping[str, Any]) -> Mapping[str, Any]:
    disks = description.get("disks", ())
    return next((one for one in disks if one.get("boot")), _NOTHING)


def connect_info_of(
    id: str, description: Mapping[str, Any], settings: ConnectorSettings
) -> ConnectInfo:
    """Return how to connect to an instance, without credentials."""
    disk = _boot_disk(description)
    features = {str(one.get("type", "")) for one in disk.get("guestOsFeatures", ())}
    os = settings.os or ("windows" if "WINDOWS" in features else "linux")
    inner, outer = instance_addresses(description)
    return ConnectInfo(
        id=id,
        protocol=settings.protocol or ("winrm" if os == "windows" else "ssh"),
        internal_address=inner,
        external_address=outer,
        os=os,
        arch=_ARCHITECTURES.get(str(disk.get("architecture", "")), ""),
        username=settings.username or USER,
        incarnation=str(description.get("id", "")),
        use_external_address=settings.use_external_addr,
    )


def require_running(id: str, description: Mapping[str, Any]) -> None:
    """Require that an instance can be reached.

    Raises:
        InstanceUnhealthy: it cannot be reached now.
    """
    status = str(description.get("status", ""))
    if status not in {"RUNNING", "PENDING_STOP"}:
        raise InstanceUnhealthy(
            id, f"instance {id} cannot be reached while it is {status.lower() or 'being created'}"
        )
    if not any(instance_addresses(description)):
        raise InstanceUnhealthy(id, f"instance {id} has no address yet")
