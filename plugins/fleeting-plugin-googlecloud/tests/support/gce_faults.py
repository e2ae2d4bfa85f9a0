"""Faults that the fake cloud can have, in the form in which Google has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = (
    "Fault",
    "Hang",
    "HttpFault",
    "LostReply",
    "LostRequest",
    "OperationFault",
    "forbidden",
    "quota_exceeded",
    "rate_limited",
    "unauthorized",
    "unavailable",
)


class Fault:
    """Happens to a request instead of an answer."""


@dataclass(frozen=True)
class HttpFault(Fault):
    """Google answers with an error, and does nothing."""

    status: int
    reason: str
    message: str

    @property
    def body(self) -> dict[str, Any]:
        """Return the error as Google writes it."""
        one = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [one]}}


class LostRequest(Fault):
    """The connection breaks before Google has done anything."""


class LostReply(Fault):
    """The connection breaks after Google has carried out the request."""


class Hang(Fault):
    """Google does not answer at all until the fake cloud is reset."""


@dataclass(frozen=True)
class OperationFault(Fault):
    """Google accepts the request, and its operation ends with an error."""

    code: str
    message: str


def rate_limited() -> HttpFault:
    """Return the refusal of one request too many."""
    return HttpFault(403, "rateLimitExceeded", "Rate Limit Exceeded")


def quota_exceeded() -> HttpFault:
    """Return the refusal for lack of quota."""
    return HttpFault(403, "quotaExceeded", "Quota 'CPUS' exceeded.  Limit: 24.0 in region r.")


def forbidden() -> HttpFault:
    """Return the refusal for lack of a permission."""
    return HttpFault(403, "forbidden", "Required 'compute.something' permission")


def unauthorized() -> HttpFault:
    """Return the refusal of credentials."""
    return HttpFault(401, "authError", "Invalid Credentials")


def unavailable() -> HttpFault:
    """Return an internal failure, after which nothing was done."""
    return HttpFault(503, "backendError", "Backend Error")
