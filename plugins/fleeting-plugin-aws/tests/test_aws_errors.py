"""The border where the SDK's errors become those of `fleeting`."""

from __future__ import annotations

import inspect
import socket
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
from botocore.parsers import ResponseParserError

from fleeting.errors import (
    ConfigError,
    FleetingError,
    GroupGone,
    OutcomeUnknown,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from fleeting_plugin_aws._errors import CredentialsExpired, Refused, translate

WHAT = "SetDesiredCapacity of aws/eu-central-1/builders"
FIELDS = {"retries": 1, "percent": 1, "xsize": 1, "ysize": 1}


def answer(code: str, message: str = "", status: int = 400) -> Exception:
    """Return what the SDK makes of an answer that is an error."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return botocore.exceptions.ClientError(response, "SetDesiredCapacity")


def endpoint_error(kind: Any, cause: Exception) -> Exception:
    """Return an error of the SDK's about a connection."""
    made: Exception = kind(endpoint_url="http://127.0.0.1", error=cause)
    return made


class AnyField(dict[str, Any]):
    """Gives a value for each field of an error's message."""

    def __missing__(self, key: str) -> str:
        return "x"


def examples() -> list[Exception]:
    """Return an error of each class that the SDK can raise."""
    found: list[Exception] = []
    for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass):
        if not issubclass(kind, Exception) or issubclass(kind, Warning):
            continue
        error = kind.__new__(kind)
        Exception.__init__(error, "x")
        vars(error).update(kwargs={"error": None}, response={})
        found.append(error)
    return found


@pytest.mark.parametrize("mutates", [False, True])
@pytest.mark.parametrize("error", examples(), ids=lambda error: type(error).__name__)
def test_translation_is_total(error: Exception, mutates: bool) -> None:  # noqa: FBT001
    """Whatever the SDK raises, an error of ours comes of it that names the request."""
    found = translate(error, WHAT, mutates=mutates)
    assert isinstance(found, FleetingError)
    assert str(found).startswith(WHAT)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("Throttling", "Rate exceeded"), Throttled),
        (answer("RequestLimitExceeded", status=503), Throttled),
        (answer("ExpiredToken", status=403), CredentialsExpired),
        (answer("RequestExpired"), CredentialsExpired),
        (answer("AccessDenied", "User: arn is not authorized", 403), PermissionDenied),
        (answer("UnauthorizedOperation", status=403), PermissionDenied),
        (answer("InsufficientInstanceCapacity", status=500), OutOfCapacity),
        (answer("VcpuLimitExceeded"), QuotaExceeded),
        (answer("ScalingActivityInProgress"), ProviderError),
        (answer("ResourceContention", status=500), ProviderError),
        (answer("ValidationError", "AutoScalingGroup name not found - no such"), GroupGone),
        (answer("ValidationError", "AutoScalingGroup builders is being deleted"), GroupGone),
        (answer("ValidationError", "Something else"), Refused),
        (botocore.exceptions.NoCredentialsError(), CredentialsExpired),
        (botocore.exceptions.ProfileNotFound(profile="builders"), ConfigError),
    ],
)
@pytest.mark.parametrize("mutates", [False, True])
def test_what_was_not_done(error: Exception, kind: type[Exception], mutates: bool) -> None:  # noqa: FBT001
    """Where AWS has refused, or nothing was sent, that is certain, and the class says why."""
    assert type(translate(error, WHAT, mutates=mutates)) is kind


@pytest.mark.parametrize(
    "error",
    [
        answer("InternalFailure", status=500),
        answer("ServiceUnavailable", status=503),
        endpoint_error(botocore.exceptions.ReadTimeoutError, TimeoutError()),
        endpoint_error(botocore.exceptions.ConnectionClosedError, TimeoutError()),
        # A connection that is reset in the middle has the class of one that never was.
        endpoint_error(
            botocore.exceptions.EndpointConnectionError, aiohttp.ClientOSError(104, "reset")
        ),
        botocore.exceptions.HTTPClientError(error=ValueError("broken")),
        ResponseParserError("Unable to parse response, invalid XML received:\nb'<html>secret'"),
        ValueError("a bug of the SDK"),
    ],
)
def test_what_may_have_been_done(error: Exception) -> None:
    """Where the answer is lost, only a request that changes nothing can be repeated."""
    assert type(translate(error, WHAT, mutates=True)) is OutcomeUnknown
    asked = translate(error, WHAT, mutates=False)
    assert type(asked) is ProviderError
    assert asked.retryable


@pytest.mark.parametrize(
    "error",
    [
        endpoint_error(botocore.exceptions.ConnectTimeoutError, TimeoutError()),
        endpoint_error(
            botocore.exceptions.EndpointConnectionError,
            aiohttp.ClientConnectorError(None, OSError(111, "refused")),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        ),
        endpoint_error(botocore.exceptions.EndpointConnectionError, socket.gaierror("no name")),
    ],
)
def test_what_was_never_sent(error: Exception) -> None:
    """Where no connection came about, nothing was done, and the network is to blame."""
    found = translate(error, WHAT, mutates=True)
    assert type(found) is ProviderError
    assert "look at the network" in str(found)


def test_our_own_errors_pass() -> None:
    """An error of ours that comes through the SDK is not translated again."""
    error = GroupGone("gone")
    assert translate(error, WHAT, mutates=True) is error


def test_refusals_keep_the_words_of_aws() -> None:
    """Who asked can tell one refusal from another."""
    found = translate(answer("ValidationError", "Instance Id not found."), WHAT, mutates=True)
    assert isinstance(found, Refused)
    assert (found.code, found.words) == ("ValidationError", "Instance Id not found")
    assert not found.retryable


def test_bodies_are_not_quoted() -> None:
    """Of an answer that cannot be read only the first line of the complaint is repeated."""
    error = ResponseParserError("Unable to parse response:\nb'<html>secret</html>'")
    assert "secret" not in str(translate(error, WHAT, mutates=False))


def test_requests_are_not_quoted() -> None:
    """When a signature is wrong AWS repeats the request, session token included; we do not."""
    words = (
        "The request signature we calculated does not match the signature you provided.\n\n"
        "The Canonical String for this request should have been\n'POST\n/\n\n"
        "x-amz-security-token:hunter2\n'"
    )
    found = translate(answer("SignatureDoesNotMatch", words, 403), WHAT, mutates=False)
    assert type(found) is PermissionDenied
    assert "you provided" in str(found)
    assert "hunter2" not in str(found)


def test_wrong_parameters_are_named() -> None:
    """What is wrong with a parameter stands in the sentence, not the heading above it."""
    report = "Invalid length for parameter RoleArn, value: 8, valid min length: 20"
    error = botocore.exceptions.ParamValidationError(report=report)
    assert f"ParamValidationError: {report}; mend" in str(translate(error, WHAT, mutates=False))
