"""How the SDK's errors are translated into those of `fleeting`."""

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
from fleeting_plugin_aws._errors import CredentialsExpired, Refused, WrongSignature, translate

WHAT = "SetDesiredCapacity of aws/eu-central-1/builders"


def answer(code: str, message: str = "", status: int = 400) -> Exception:
    """Return the SDK's error for an answer of AWS."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return botocore.exceptions.ClientError(response, "SetDesiredCapacity")


def endpoint_error(kind: Any, cause: Exception) -> Exception:
    """Return an error of the SDK about a connection."""
    made: Exception = kind(endpoint_url="http://127.0.0.1", error=cause)
    return made


def examples() -> list[Exception]:
    """Return an error of every class that the SDK can raise."""
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
    """Every error of the SDK becomes one of ours that names the request."""
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
        (answer("SignatureDoesNotMatch", "The request signature", 403), WrongSignature),
        (answer("RequestTimeTooSkewed", status=403), WrongSignature),
        (answer("InvalidClientTokenId", "The security token is invalid", 403), CredentialsExpired),
        (answer("AuthFailure", "AWS was not able to validate", 401), CredentialsExpired),
        (answer("OptInRequired", "You are not subscribed", 403), PermissionDenied),
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
def test_requests_that_were_not_carried_out(
    error: Exception,
    kind: type[Exception],
    mutates: bool,  # noqa: FBT001
) -> None:
    """If AWS refused, or nothing was sent, the error's class says why."""
    assert type(translate(error, WHAT, mutates=mutates)) is kind


@pytest.mark.parametrize(
    "error",
    [
        answer("InternalFailure", status=500),
        answer("ServiceUnavailable", status=503),
        endpoint_error(botocore.exceptions.ReadTimeoutError, TimeoutError()),
        endpoint_error(botocore.exceptions.ConnectionClosedError, TimeoutError()),
        # A connection that was reset has the same class as one that was never established.
        endpoint_error(
            botocore.exceptions.EndpointConnectionError, aiohttp.ClientOSError(104, "reset")
        ),
        botocore.exceptions.HTTPClientError(error=ValueError("broken")),
        ResponseParserError("Unable to parse response, invalid XML received:\nb'<html>secret'"),
        ValueError("a bug of the SDK"),
    ],
)
def test_requests_that_may_have_been_carried_out(error: Exception) -> None:
    """If the answer is lost, only a request that changes nothing can be repeated."""
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
def test_requests_that_were_never_sent(error: Exception) -> None:
    """If no connection was established, nothing was done, and the error points to the network."""
    found = translate(error, WHAT, mutates=True)
    assert type(found) is ProviderError
    assert "check the network" in str(found)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            answer("SignatureDoesNotMatch", "The request signature we calculated"),
            "secret access key",
        ),
        (answer("SignatureDoesNotMatch", "Signature expired: 2026 is now earlier"), "the clock"),
        (answer("InvalidSignatureException", "Signature not yet current: 2026"), "the clock"),
        (answer("AccessDenied", "not authorized"), "fleeting check aws"),
        (answer("RequestExpired", "Request has expired."), "a clock of this machine"),
        (answer("AuthFailure", "AWS was not able to validate"), "renew the credentials"),
        (answer("OptInRequired", "You are not subscribed"), "enable the service"),
        (botocore.exceptions.UnauthorizedSSOTokenError(), "`aws sso login`"),
        (botocore.exceptions.SSOTokenLoadError(error_msg="none"), "`aws sso login`"),
        (ResponseParserError("Unable to parse response: b'<html>'"), "did not come from AWS"),
    ],
)
def test_advice_fits_the_cause(error: Exception, advice: str) -> None:
    """The message says what to do about this cause, and not about another one."""
    assert advice in str(translate(error, WHAT, mutates=False))


@pytest.mark.parametrize(
    "code",
    [
        "AuthFailure",
        "ExpiredToken",
        "InvalidClientTokenId",
        "OptInRequired",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    ],
)
def test_no_policy_cures_wrong_credentials(code: str) -> None:
    """A policy is not the advice for a wrong key, a wrong clock or an account without access."""
    assert "policy" not in str(translate(answer(code, "x", 403), WHAT, mutates=False))


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("You are not authorized to perform this operation.", "autoscaling:SetDesiredCapacity"),
        ("User: arn is not authorized to perform: kms:CreateGrant on resource", "kms:CreateGrant"),
    ],
)
def test_missing_permissions_are_named(message: str, action: str) -> None:
    """The permission is that of the request, unless AWS names another one."""
    error = answer("UnauthorizedOperation", message, 403)
    found = translate(error, WHAT, mutates=True, action="autoscaling:SetDesiredCapacity")
    assert f"; allow {action}: `fleeting check aws`" in str(found)


def test_our_own_errors_are_kept() -> None:
    """An error of `fleeting` that passes through the SDK is not translated again."""
    error = GroupGone("gone")
    assert translate(error, WHAT, mutates=True) is error


def test_refusals_keep_code_and_reason() -> None:
    """A refusal keeps AWS's error code and message."""
    found = translate(answer("ValidationError", "Instance Id not found."), WHAT, mutates=True)
    assert isinstance(found, Refused)
    assert (found.code, found.reason) == ("ValidationError", "Instance Id not found")
    assert not found.retryable


def test_bodies_are_not_quoted() -> None:
    """The error for an unreadable answer does not contain the answer."""
    error = ResponseParserError("Unable to parse response:\nb'<html>secret</html>'")
    assert "secret" not in str(translate(error, WHAT, mutates=False))


def test_requests_are_not_quoted() -> None:
    """AWS repeats a wrongly signed request, session token included; the error does not."""
    message = (
        "The request signature we calculated does not match the signature you provided.\n\n"
        "The Canonical String for this request should have been\n'POST\n/\n\n"
        "x-amz-security-token:hunter2\n'"
    )
    found = translate(answer("SignatureDoesNotMatch", message, 403), WHAT, mutates=False)
    assert type(found) is WrongSignature
    assert "you provided" in str(found)
    assert "hunter2" not in str(found)


def test_wrong_parameters_are_named() -> None:
    """The error for an invalid parameter contains the reason, not only its heading."""
    report = "Invalid length for parameter RoleArn, value: 8, valid min length: 20"
    error = botocore.exceptions.ParamValidationError(report=report)
    assert f"ParamValidationError: {report}; correct" in str(translate(error, WHAT, mutates=False))
