"""EC2 Instance Connect: keys that an instance accepts for a minute."""

# ruff: noqa: N803 - parameters are named and ordered as in the contract
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncssh

from aws_engine import NotModelled
from aws_errors import AwsError

if TYPE_CHECKING:
    from aws_engine import World

__all__ = ("InstanceConnect",)

KINDS = ("ssh-rsa", "ssh-ed25519")


class InstanceConnect:
    """Answers the calls of the service."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def answer(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operation.

        Raises:
            AwsError: AWS would refuse it.
            NotModelled: it is not known what AWS would do.
        """
        if operation != "SendSSHPublicKey":
            raise NotModelled(f"not modelled: {operation}")
        return await self._send_key(**parameters)

    async def _send_key(
        self,
        InstanceId: str,
        InstanceOSUser: str,
        SSHPublicKey: str,
        AvailabilityZone: str | None = None,
    ) -> dict[str, Any]:
        found = self._world.find_member(InstanceId)
        if found is None or self._world.box(InstanceId).hidden:
            raise AwsError("EC2InstanceNotFoundException", "Instance not found.")
        _, member = found
        if member.state.startswith("Terminating") or self._world.box(InstanceId).is_off:
            raise AwsError(
                "EC2InstanceStateInvalidException",
                "Instance is not running. Start it, and try again.",
            )
        if AvailabilityZone not in {None, member.zone}:
            raise AwsError(
                "InvalidArgsException", "Instance not found in the specified Availability Zone."
            )
        try:
            key = asyncssh.import_public_key(SSHPublicKey)
        except asyncssh.KeyImportError:
            raise AwsError("InvalidArgsException", "The SSH public key is not valid.") from None
        if key.get_algorithm() not in KINDS:
            raise AwsError("InvalidArgsException", "The SSH public key is not RSA or ED25519.")
        self._world.box(InstanceId).keys.append((InstanceOSUser, SSHPublicKey, self._world.now()))
        return {"RequestId": "6a2b1c1e-7f43-4a44-9b9e-0f3c1d2e4a5b", "Success": True}
