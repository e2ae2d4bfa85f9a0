"""Translates the SDK's errors into those of `fleeting`.

A request that reads can be repeated after any failure. For a request that
changes something, it matters whether AWS may have carried it out:

* AWS answered with a client error (4xx) or throttled the request: not done.
* No connection was established: not done.
* The connection broke, the reply was late or unreadable, or AWS failed
  internally (5xx): it may have been done, which is `OutcomeUnknown`.

AWS's message is passed on because it names the resource and the rule, but only
its first line. That line never contains a secret: keys are not part of it, and
the policies that forbid an action are encoded. Later lines can: for a request
that was signed wrongly, they repeat it with its session token.
"""

from __future__ import annotations

import importlib
import re
import shlex
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "CredentialsExpired",
    "ForeignAnswer",
    "Refused",
    "WrongSignature",
    "is_foreign",
    "translate",
)

THROTTLING = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "OverLimit",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
    }
)
# AWS does not know the key, or the request reached it long after it was signed.
UNKNOWN_KEY = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "UnrecognizedClientException",
    }
)
PERMISSION = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthException",
        "ForbiddenException",
        "NotAuthorized",
        "UnauthorizedOperation",
    }
)
# The account itself may not use the service or the region, whatever its policies allow.
ACCOUNT = frozenset({"Blocked", "OptInRequired", "PendingVerification"})
# The request was not signed with the secret that AWS knows.
SIGNATURE = frozenset(
    {
        "IncompleteSignature",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
    }
)
# Parts of AWS's messages about a signature that was made too early or too late.
_CLOCK = ("signature expired", "signature not yet current", "too skewed")
QUOTA = frozenset(
    {
        "InstanceLimitExceeded",
        "LimitExceeded",
        "LimitExceededFault",
        "MaxSpotInstanceCountExceeded",
        "VcpuLimitExceeded",
    }
)
CAPACITY = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "SpotMaxPriceTooLow",
    }
)
# Another operation on the same resource is under way; it will end in a moment.
BUSY = frozenset(
    {
        "IdempotentCallInProgress",
        "IncorrectInstanceState",
        "ResourceContention",
        "ResourceContentionFault",
        "ResourceInUse",
        "ResourceInUseFault",
        "ScalingActivityInProgress",
        "ScalingActivityInProgressFault",
    }
)
# HTTP statuses from here on are server errors.
SERVER_FAULT = 500

# Parts of AWS's messages about a group that does not exist or is being deleted.
_GROUP_GONE = ("name not found", "group not found", "pending delet", "is being deleted")


class CredentialsExpired(PermissionDenied):
    """The credentials are not valid, or not any more, or there are none.

    Unlike other refusals, a retry can succeed: the SDK may find renewed credentials.

    Attributes:
        command: makes new ones; empty if that depends on where the SDK finds them.
    """

    retryable = True

    def __init__(self, message: str, command: str = "") -> None:
        self.command = command
        super().__init__(message)


class WrongSignature(PermissionDenied):
    """The secret key is wrong, or this machine's clock is."""


class ForeignAnswer(Exception):
    """An answer that did not come from AWS, such as the sign-in page of a network."""


class Refused(ProviderError):
    """AWS refused the request and did nothing. Repeating it unchanged does not help.

    Attributes:
        code: AWS's error code.
        reason: AWS's message.
    """

    retryable = False

    def __init__(self, message: str, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(message)


# AWS's error codes, our error class for them, and what to do about it.
_CODES: tuple[tuple[frozenset[str], type[ProviderError], str], ...] = (
    (THROTTLING, Throttled, "if this persists, lower requests_per_second in plugin_config"),
    (EXPIRED, CredentialsExpired, "renew the credentials where the SDK finds them"),
    (
        UNKNOWN_KEY,
        CredentialsExpired,
        (
            "renew the credentials where the SDK finds them; a clock of this machine that is "
            "minutes off, or a region that the account has not enabled, has the same effect"
        ),
    ),
    (
        ACCOUNT,
        PermissionDenied,
        "enable the service and the region for the account, or ask AWS to do so",
    ),
    (SIGNATURE, WrongSignature, "correct the secret access key where the SDK finds it"),
    (CAPACITY, OutOfCapacity, "another zone or instance type may have capacity"),
    (QUOTA, QuotaExceeded, "ask AWS to raise the account's quota, or use fewer instances"),
    (BUSY, ProviderError, "it will be retried"),
)


# The part of AWS's messages that names the permission.
_MISSING = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")


def is_foreign(status: int, kind: str, body: bytes) -> bool:
    """Return whether an answer cannot come from AWS.

    Args:
        status: of HTTP. Pages about server errors may be AWS's own.
        kind: the type of its content.
        body: as received.
    """
    if status >= SERVER_FAULT:
        return False
    is_page = body.lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))
    return is_page or "html" in kind.lower() or 300 <= status < 400  # noqa: PLR2004 - redirections


def translate(
    error: Exception, what: str, *, mutates: bool, action: str = "", profile: str | None = None
) -> FleetingError:
    """Return the corresponding error of `fleeting`.

    Args:
        error: raised by the SDK or a library below it.
        what: the request and the group, such as `SetDesiredCapacity of aws/eu-central-1/builders`.
        mutates: whether the request changes something.
        action: the permission that the request needs; empty if unknown.
        profile: of the SDK, if one is used.
    """
    exceptions = importlib.import_module("botocore.exceptions")
    if isinstance(error, FleetingError):
        return error
    if isinstance(error, exceptions.ClientError):
        return _refusal(error, what, action, mutates=mutates)
    # Older versions of the SDK lack some of these classes.
    if isinstance(error, tuple(getattr(exceptions, name, type(None)) for name in _NO_CREDENTIALS)):
        return _no_credentials(error, what, profile)
    if isinstance(error, tuple(getattr(exceptions, name, type(None)) for name in _MISCONFIGURED)):
        return ConfigError(
            f"{what}: {_summary(error)}; correct plugin_config or the SDK's configuration"
        )
    return _connection_failure(error, what, exceptions, mutates=mutates)


def _refusal(error: Any, what: str, action: str, *, mutates: bool) -> FleetingError:
    """Translate an error that AWS answered with."""
    response: Mapping[str, Any] = error.response
    code = str(response.get("Error", {}).get("Code", "")).removeprefix("Client.")
    reason = _first_line(response.get("Error", {}).get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = f"{what}: AWS answered {code or status}" + (f": {reason}" if reason else "")
    if code == "RequestTimeTooSkewed" or any(part in reason.lower() for part in _CLOCK):
        return WrongSignature(f"{message}; set the clock of this machine, for example with NTP")
    if code in PERMISSION:
        return PermissionDenied(f"{message}; {_permission_advice(error, action, reason)}")
    for codes, make, advice in _CODES:
        if code in codes:
            return make(f"{message}; {advice}")
    if status >= SERVER_FAULT:
        return _unanswered(f"{message}; AWS failed internally", mutates=mutates)
    if any(phrase in reason.lower() for phrase in _GROUP_GONE):
        return GroupGone(f"{message}; check name and region in plugin_config")
    return Refused(message, code, reason)


def _unanswered(message: str, *, mutates: bool) -> ProviderError:
    if mutates:
        return OutcomeUnknown(f"{message}; the request may or may not have been carried out")
    return ProviderError(f"{message}; it will be retried")


def _permission_advice(error: Any, action: str, reason: str) -> str:
    """Return how to get a permission that AWS misses."""
    if str(error.operation_name).startswith("AssumeRole"):
        return (
            "allow sts:AssumeRole for the role to the credentials that were found, and name them, "
            "and external_id if there is one, in the trust policy of the role"
        )
    # AWS's message is more exact, if it names one.
    named = _MISSING.search(reason)
    missing = named[1] if named else action
    return f"allow {missing or 'it'}: `fleeting check aws` shows the whole policy"


def _no_credentials(error: Exception, what: str, profile: str | None) -> FleetingError:
    message = f"{what}: no usable credentials: {_summary(error)}"
    names = {kind.__name__ for kind in type(error).__mro__}
    option = f" --profile {shlex.quote(profile)}" if profile else ""
    if names & {"SSOError", "TokenRetrievalError"}:
        command = f"aws sso login{option}"
    elif "LoginError" in names:
        command = f"aws login{option}"
    else:
        return CredentialsExpired(
            f"{message}; set profile or credentials_file in plugin_config or the AWS_ environment "
            "variables, or run on an instance with a role"
        )
    return CredentialsExpired(f"{message}; sign in with `{command}`", command)


# Errors that the SDK raises before it sends anything.
_NO_CREDENTIALS = (
    "CredentialRetrievalError",
    "LoginError",
    "MetadataRetrievalError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "RefreshWithMFAUnsupportedError",
    "SSOError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "UnknownCredentialError",
)
_MISCONFIGURED = (
    "BaseEndpointResolverError",
    "ConfigNotFound",
    "ConfigParseError",
    "EndpointProviderError",
    "InfiniteLoopConfigError",
    "InvalidConfigError",
    "InvalidIMDSEndpointError",
    "InvalidIMDSEndpointModeError",
    "InvalidProxiesConfigError",
    "InvalidRegionError",
    "InvalidRetryConfigurationError",
    "InvalidRetryModeError",
    "MissingDependencyException",
    "NoRegionError",
    "ParamValidationError",
    "ProfileNotFound",
    "UnknownEndpointError",
    "UnknownRegionError",
)


def _connection_failure(
    error: Exception, what: str, exceptions: Any, *, mutates: bool
) -> ProviderError:
    """Translate a failure on the way to AWS or back."""
    unconnected = exceptions.ConnectTimeoutError | exceptions.ProxyConnectionError
    if isinstance(error, unconnected) or (
        isinstance(error, exceptions.EndpointConnectionError) and _never_connected(error)
    ):
        return ProviderError(
            f"{what}: no connection to AWS: {_summary(error)}; check the network, the proxy if "
            "there is one, and region and endpoint_url in plugin_config"
        )
    if isinstance(error, exceptions.SSLError):
        return ProviderError(
            f"{what}: the TLS certificate could not be verified: {_summary(error)}; check "
            "AWS_CA_BUNDLE and proxies"
        )
    if isinstance(error, ForeignAnswer) or type(error).__name__ == "ResponseParserError":
        return _unanswered(
            f"{what}: the answer did not come from AWS; see whether a proxy or the sign-in page of "
            "a network answers in its place",
            mutates=mutates,
        )
    return _unanswered(f"{what}: the answer was lost: {_summary(error)}", mutates=mutates)


def _never_connected(error: Any) -> bool:
    """Return whether no connection was established.

    The SDK raises the same class for a connection that was reset later, so the error of the
    library below decides. The SDK keeps that error for its message.
    """
    cause = error.kwargs.get("error")
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return not kinds.isdisjoint({"ClientConnectorError", "gaierror"})


def _summary(error: Any) -> str:
    """Return the name of an error and the first line of its message."""
    # For an invalid parameter, the first line is only a heading; the report has the reason.
    report = error.kwargs.get("report") if hasattr(error, "kwargs") else None
    first = _first_line(report or error)
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _first_line(text: object) -> str:
    return next(iter(str(text).strip().splitlines()), "").strip().rstrip(".:")
