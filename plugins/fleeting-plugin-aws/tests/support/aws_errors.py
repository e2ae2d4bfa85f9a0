"""Faults that tests can inject, and the errors that AWS answers with.

Codes, statuses and messages differ from service to service.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

__all__ = (
    "AccessDenied",
    "AwsError",
    "CredentialsExpired",
    "Fault",
    "LostReply",
    "LostRequest",
    "Throttled",
    "Unavailable",
    "validation_error",
)

ACCOUNT = "123456789012"


class AwsError(Exception):
    """An error that AWS answers with.

    Attributes:
        code: the error's code.
        message: the error's message.
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def validation_error(message: str) -> AwsError:
    """Return the error that Auto Scaling uses for most refusals."""
    return AwsError("ValidationError", message)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that a test injects into calls."""

    def error(self, service: str, operation: str) -> AwsError | None:
        """Return the error to answer with; None if the request is carried out first."""
        del service, operation
        return None


@dataclass(frozen=True, slots=True)
class Throttled(Fault):
    """AWS throttles the call."""

    @override
    def error(self, service: str, operation: str) -> AwsError:
        match service:
            case "ec2":
                return AwsError("RequestLimitExceeded", "Request limit exceeded.", 503)
            case "ec2-instance-connect":
                return AwsError("ThrottlingException", "Rate exceeded", 400)
            case "sqs":
                return AwsError("RequestThrottled", "Request was throttled.", 403)
            case _:
                return AwsError("Throttling", "Rate exceeded", 400)


@dataclass(frozen=True, slots=True)
class CredentialsExpired(Fault):
    """The session's credentials have expired."""

    @override
    def error(self, service: str, operation: str) -> AwsError:
        text = "The security token included in the request is expired"
        match service:
            case "ec2":
                return AwsError("RequestExpired", "Request has expired.", 400)
            case "ec2-instance-connect" | "sqs":
                return AwsError("ExpiredTokenException", text, 400)
            case _:
                return AwsError("ExpiredToken", text, 403)


@dataclass(frozen=True, slots=True)
class AccessDenied(Fault):
    """The policy does not allow the operation."""

    @override
    def error(self, service: str, operation: str) -> AwsError:
        who = f"arn:aws:sts::{ACCOUNT}:assumed-role/scaler/session"
        text = (
            f"User: {who} is not authorized to perform: {service}:{operation} because no"
            f" identity-based policy allows the {service}:{operation} action"
        )
        match service:
            case "ec2":
                words = "You are not authorized to perform this operation. "
                return AwsError("UnauthorizedOperation", words + text, 403)
            case "ec2-instance-connect":
                return AwsError("AccessDeniedException", text, 400)
            case _:
                return AwsError("AccessDenied", text, 403)


@dataclass(frozen=True, slots=True)
class Unavailable(Fault):
    """The service is unavailable."""

    @override
    def error(self, service: str, operation: str) -> AwsError:
        text = "An internal error has occurred"
        if service == "ec2":
            return AwsError("InternalError", text, 500)
        return AwsError("InternalFailure", text, 500)


@dataclass(frozen=True, slots=True)
class LostRequest(Fault):
    """The connection breaks before the request has any effect."""


@dataclass(frozen=True, slots=True)
class LostReply(Fault):
    """The request has its effect, and the connection breaks before the answer."""
