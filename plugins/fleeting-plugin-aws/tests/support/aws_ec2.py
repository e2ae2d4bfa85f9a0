"""The operations of EC2 in which moto differs from AWS."""

# ruff: noqa: N803 - parameters are named and ordered as in the contract
from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from aws_engine import NotModelled, Power, paged
from aws_errors import AwsError
from aws_group import ENDING, SERVING, STARTING, Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aws_engine import Box, World

__all__ = ("Ec2",)

INSTANCE_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
PASSED_ON = {
    "CreateTags",
    "DeleteTags",
    "DescribeImages",
    "DescribeKeyPairs",
    "DescribeLaunchTemplateVersions",
    "DescribeLaunchTemplates",
}


class Ec2:
    """Answers the calls of the service."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._operations: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "DescribeInstances": self._describe,
            "GetConsoleOutput": self._console,
            "GetPasswordData": self._password,
            "StartInstances": self._start,
            "StopInstances": self._stop,
        }

    async def answer(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Carry out an operation.

        Raises:
            AwsError: AWS would refuse it.
            NotModelled: it is not known what AWS would do.
        """
        if parameters.pop("DryRun", False):
            raise AwsError(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
            )
        if handler := self._operations.get(operation):
            async with self._world.lock:
                return await handler(**parameters)
        if operation in PASSED_ON:
            return await self._world.engine.call("ec2", operation, **parameters)
        raise NotModelled(f"not modelled: {operation}")

    async def _describe(
        self,
        InstanceIds: list[str] | None = None,
        Filters: list[dict[str, Any]] | None = None,
        MaxResults: int | None = None,
        NextToken: str | None = None,
    ) -> dict[str, Any]:
        if InstanceIds and MaxResults is not None:
            raise AwsError(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            )
        ids = InstanceIds or []
        self._check(ids)
        for one in Filters or ():
            if one["Name"] == "instance-id":
                ids = [*ids, *one["Values"]]
        parameters = {"InstanceIds": InstanceIds, "Filters": Filters}
        answer = await self._world.engine.call(
            "ec2", "DescribeInstances", **{k: v for k, v in parameters.items() if v is not None}
        )
        boxes = self._world.boxes  # moto may still list instances of earlier tests
        hidden = {id for id, box in self._world.boxes.items() if box.hidden}
        for id in hidden & set(ids):
            self._world.boxes[id].hidden -= 1
        if concerned := [id for id in InstanceIds or () if id in hidden]:
            raise _not_found(concerned)
        shown = [
            (reservation, self._shown(one))
            for reservation in answer["Reservations"]
            for one in reservation["Instances"]
            if one["InstanceId"] in boxes.keys() - hidden
        ]
        if InstanceIds:
            return {"Reservations": _reservations(shown)}
        page, token = paged(shown, self._world.page_size, MaxResults, NextToken)
        return {"Reservations": _reservations(page)} | ({"NextToken": token} if token else {})

    def _shown(self, one: dict[str, Any]) -> dict[str, Any]:
        """Return an instance as AWS would describe it now."""
        id = one["InstanceId"]
        state = one["State"]["Name"]
        box = self._world.box(id)
        found = self._world.find_member(id)
        one = dict(one)
        if found is not None:
            _, member = found
            one["InstanceType"] = member.type
            one["Placement"] = {**one.get("Placement", {}), "AvailabilityZone": member.zone}
            if member.is_spot:
                one["InstanceLifecycle"] = "spot"
            if member.state == STARTING and state == "running":
                state = "pending"
            elif member.state.startswith(ENDING):
                state = "shutting-down"
        if box.power is not None and state in {"running", "stopped"}:
            if box.power.wait.look(self._world.now()):
                box.power = None
            else:
                state = box.power.shown
        one["State"] = {"Name": state, "Code": CODES[state]}
        if box.address is not None and state not in {"shutting-down", "terminated"}:
            one["PrivateIpAddress"] = one["PublicIpAddress"] = box.address
        one |= box.facts
        if address := one.get("PrivateIpAddress"):
            one["NetworkInterfaces"] = [
                interface | {"PrivateIpAddress": address}
                for interface in one.get("NetworkInterfaces", [])
            ]
        return {key: value for key, value in one.items() if value is not None}

    def _check(self, ids: list[str]) -> None:
        for id in ids:
            if not INSTANCE_ID.fullmatch(id):
                raise AwsError("InvalidInstanceID.Malformed", f'Invalid id: "{id}"')

    async def _known(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Return moto's description of instances.

        Raises:
            AwsError: there is no such instance, or not yet.
        """
        self._check(ids)
        if hidden := [id for id in ids if self._world.box(id).hidden]:
            for id in hidden:
                self._world.box(id).hidden -= 1
            raise _not_found(hidden)
        answer = await self._world.engine.call("ec2", "DescribeInstances", InstanceIds=ids)
        return {
            one["InstanceId"]: one
            for reservation in answer["Reservations"]
            for one in reservation["Instances"]
        }

    async def _console(self, InstanceId: str, **_: Any) -> dict[str, Any]:
        await self._known([InstanceId])
        box = self._world.box(InstanceId)
        answer: dict[str, Any] = {"InstanceId": InstanceId}
        if not _is_quiet(box):
            text = console_text(box.host_key.export_public_key("openssh").decode().split()[:2])
            answer["Output"] = base64.b64encode(text.encode()).decode()
            answer["Timestamp"] = box.launched
        return answer

    async def _password(self, InstanceId: str) -> dict[str, Any]:
        await self._known([InstanceId])
        box = self._world.box(InstanceId)
        data = ""
        if box.password is not None and not _is_quiet(box):
            assert box.password_key is not None
            key = load_pem_public_key(box.password_key)
            assert isinstance(key, rsa.RSAPublicKey)
            cipher = key.encrypt(box.password.encode(), padding.PKCS1v15())
            # EC2 puts line ends around it.
            data = f"\r\n{base64.b64encode(cipher).decode()}\r\n"
        return {"InstanceId": InstanceId, "PasswordData": data, "Timestamp": box.launched}

    async def _stop(self, InstanceIds: list[str], **options: Any) -> dict[str, Any]:
        before = await self._known(InstanceIds)
        for id, one in before.items():
            if one["State"]["Name"] not in {"running", "stopped"}:
                raise _wrong_state(id, one["State"]["Name"])
        await self._world.engine.call("ec2", "StopInstances", InstanceIds=InstanceIds, **options)
        for id in InstanceIds:
            self._change_power(id, "stopping")
            await self._world.power_off(id, for_good=False)
            found = self._world.find_member(id)
            if found is not None and found[1].state == SERVING:
                # The group considers it unhealthy and will replace it.
                found[1].health = "Unhealthy"
        return {"StoppingInstances": [_change(one, "stopping") for one in before.values()]}

    async def _start(self, InstanceIds: list[str], **options: Any) -> dict[str, Any]:
        before = await self._known(InstanceIds)
        for id, one in before.items():
            power = self._world.box(id).power
            if one["State"]["Name"] not in {"running", "stopped"} or (
                power is not None and power.shown == "stopping"
            ):
                raise _wrong_state(id, power.shown if power else one["State"]["Name"])
        await self._world.engine.call("ec2", "StartInstances", InstanceIds=InstanceIds, **options)
        for id in InstanceIds:
            self._change_power(id, "pending")
            await self._world.power_on(id, None)
        return {"StartingInstances": [_change(one, "pending") for one in before.values()]}

    def _change_power(self, id: str, shown: str) -> None:
        found = self._world.find_member(id)
        delay = found[0].delays.power if found else 0
        self._world.box(id).power = Power(shown, Wait(delay, self._world.now()))


def console_text(host_key: list[str]) -> str:
    """Return the console output of a booted instance, as cloud-init prints it."""
    keys = f"{' '.join(host_key)} root@ip-10-0-0-1\r\n"
    return (
        "[    0.000000] Linux version 6.1.0 (mockbuild@buildhost)\r\n"
        "[   12.345678] cloud-init[1234]: Cloud-init v. 22.2.2 running 'modules:final'\r\n"
        "ci-info: no authorized SSH keys fingerprints found for user ec2-user.\r\n"
        "-----BEGIN SSH HOST KEY FINGERPRINTS-----\r\n"
        "256 SHA256:not-looked-at root@ip-10-0-0-1 (ED25519)\r\n"
        "-----END SSH HOST KEY FINGERPRINTS-----\r\n"
        f"-----BEGIN SSH HOST KEY KEYS-----\r\n{keys}-----END SSH HOST KEY KEYS-----\r\n"
        "[   13.000000] cloud-init[1234]: Cloud-init v. 22.2.2 finished\r\n"
    )


def _reservations(shown: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Group instances by reservation; a page may end within a reservation."""
    found: dict[str, dict[str, Any]] = {}
    for reservation, one in shown:
        id = reservation["ReservationId"]
        found.setdefault(id, reservation | {"Instances": []})["Instances"].append(one)
    return list(found.values())


def _is_quiet(box: Box) -> bool:
    if box.quiet:
        box.quiet -= 1
        return True
    return False


def _change(one: dict[str, Any], state: str) -> dict[str, Any]:
    now = one["State"]["Name"]
    return {
        "InstanceId": one["InstanceId"],
        "PreviousState": {"Name": now, "Code": CODES[now]},
        "CurrentState": {"Name": state, "Code": CODES[state]},
    }


def _wrong_state(id: str, state: str) -> AwsError:
    return AwsError(
        "IncorrectInstanceState",
        f"The instance '{id}' is not in a state from which it can be stopped or started: {state}.",
    )


def _not_found(ids: list[str]) -> AwsError:
    what = f"ID '{ids[0]}' does" if len(ids) == 1 else f"IDs '{', '.join(ids)}' do"
    return AwsError("InvalidInstanceID.NotFound", f"The instance {what} not exist")
