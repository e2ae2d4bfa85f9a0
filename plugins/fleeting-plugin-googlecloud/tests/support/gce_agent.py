"""Stands in for Google's guest agent: reads the metadata of a machine as the agent does.

It is written after the agent's documented behaviour, and independently of the plugin.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

if TYPE_CHECKING:
    from gce_state import FakeMachine

__all__ = ("GuestAgent",)


class GuestAgent:
    """Applies the metadata of machines.

    Attributes:
        ahead: how far the clock of the machines is ahead of this one.
        password: what it sets on Windows machines.
        fails: the error that it reports instead; None if it succeeds.
        known_keys: keys that the image contains, for every user.
        project_metadata: applies where a machine's own says nothing.
    """

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self.password = "correct horse"  # noqa: S105 - of no real machine
        self.fails: str | None = None
        self.known_keys: tuple[str, ...] = ()
        self.project_metadata: dict[str, str] = {}

    def accepts(self, machine: FakeMachine, user: str, public_key: str) -> bool:
        """Return whether a user may log in with a key."""
        if public_key in self.known_keys:
            return True
        metadata = {**self.project_metadata, **machine.metadata}
        if metadata.get("enable-oslogin", "").lower() == "true":
            return False
        return any(
            name == user and key == public_key
            for name, key in map(self._read, metadata.get("ssh-keys", "").splitlines())
        )

    def _read(self, line: str) -> tuple[str, str]:
        """Return the user and the key of a line; empty texts if the line does not count."""
        user, _, rest = line.partition(":")
        kind, _, rest = rest.partition(" ")
        key, _, comment = rest.partition(" ")
        if not user or any(one.isspace() for one in user):
            return "", ""
        if comment.startswith("google-ssh"):
            try:
                facts: Any = json.loads(comment.removeprefix("google-ssh"))
                end = datetime.strptime(facts["expireOn"], "%Y-%m-%dT%H:%M:%S%z")
            except (KeyError, ValueError):
                return "", ""
            if end < datetime.now(UTC) + self.ahead:
                return "", ""
        return user, f"{kind} {key}"

    def answer_windows(self, machine: FakeMachine) -> None:
        """Answer the requests for passwords that are new."""
        for line in machine.metadata.get("windows-keys", "").splitlines():
            try:
                request: Any = json.loads(line)
            except ValueError:
                continue
            if request["modulus"] not in machine.serial:
                machine.serial += json.dumps(self._answer(request)) + "\n"

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        modulus, exponent = request["modulus"], request["exponent"]
        found = {"userName": request["userName"], "modulus": modulus, "exponent": exponent}
        if self.fails is not None:
            return found | {"passwordFound": False, "errorMessage": self.fails}
        key = RSAPublicNumbers(_number(exponent), _number(modulus)).public_key()
        kinds = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}  # noqa: S303 - the agent's default
        kind = kinds[request.get("hashFunction", "sha1")]
        scheme = padding.OAEP(padding.MGF1(kind), kind, None)
        encrypted = base64.b64encode(key.encrypt(self.password.encode(), scheme)).decode()
        return found | {"passwordFound": True, "encryptedPassword": encrypted}


def _number(text: str) -> int:
    return int.from_bytes(base64.b64decode(text))
