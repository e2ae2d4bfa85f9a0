"""Reads EC2's description of an instance: its state, platform and addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting.errors import InstanceGone, InstanceUnhealthy
from fleeting.types import ConnectInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting.types import ConnectorSettings

__all__ = (
    "addresses",
    "connect_info_of",
    "ec2_state_of",
    "platform_of",
    "pushes_key",
    "require_reachable",
)

ARCHITECTURES = {
    "x86_64": "amd64",
    "x86_64_mac": "amd64",
    "arm64": "arm64",
    "arm64_mac": "arm64",
    "i386": "386",
}


def ec2_state_of(description: Mapping[str, Any]) -> str:
    """Return EC2's state of an instance, such as `running`."""
    return str(description["State"]["Name"])


def pushes_key(settings: ConnectorSettings, os: str) -> bool:
    """Return whether a key is pushed to an instance with this operating system."""
    static = settings.use_static_credentials or settings.password is not None
    return os != "windows" and settings.protocol in {None, "ssh"} and not static


def platform_of(description: Mapping[str, Any]) -> str:
    """Return the operating system of an instance."""
    if str(description.get("Platform", "")).lower() == "windows":
        return "windows"
    return "darwin" if str(description.get("Architecture", "")).endswith("_mac") else "linux"


def addresses(description: Mapping[str, Any]) -> tuple[str, str]:
    """Return the internal and the external address of an instance; empty if it has none."""
    names = ("PrivateIpAddress", "Ipv6Address", "PrivateDnsName")
    internal = next((description[name] for name in names if description.get(name)), "")
    names = ("PublicIpAddress", "Ipv6Address", "PublicDnsName")
    external = next((description[name] for name in names if description.get(name)), "")
    return internal, external


def connect_info_of(
    id: str, description: Mapping[str, Any], settings: ConnectorSettings
) -> ConnectInfo:
    """Return how to connect to an instance, without credentials."""
    os = settings.os or platform_of(description)
    internal, external = addresses(description)
    return ConnectInfo(
        id=id,
        protocol=settings.protocol or ("winrm" if os == "windows" else "ssh"),
        internal_address=internal,
        external_address=external,
        os=os,
        arch=ARCHITECTURES.get(str(description.get("Architecture", "")), ""),
        username="Administrator" if os == "windows" else "ec2-user",
        use_external_address=settings.use_external_addr,
    )


def require_reachable(
    id: str, description: Mapping[str, Any] | None, *, is_member: bool
) -> Mapping[str, Any]:
    """Return the description of an instance that can be reached.

    Args:
        id: of the instance.
        description: EC2's description; None if EC2 does not know the instance.
        is_member: whether the group was listed with this instance running.

    Raises:
        InstanceGone: the instance does not exist.
        InstanceUnhealthy: it cannot be reached now.
    """
    if description is None:
        if is_member:
            raise InstanceUnhealthy(id, f"EC2 does not know instance {id} yet")
        raise InstanceGone(id, f"there is no instance {id} in EC2")
    state = ec2_state_of(description)
    if state in {"shutting-down", "terminated"}:
        raise InstanceGone(id, f"EC2 has ended instance {id}: it is {state}")
    if state != "running":
        raise InstanceUnhealthy(id, f"instance {id} cannot be reached while it is {state}")
    if not any(addresses(description)):
        raise InstanceUnhealthy(id, f"instance {id} has no address")
    return description
