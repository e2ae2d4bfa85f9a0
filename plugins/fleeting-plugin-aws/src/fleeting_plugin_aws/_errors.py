"""The one border where the SDK's errors become those of `fleeting`.

A request that only asks can be repeated whatever happened to it. For one that
changes something it matters whether AWS may have carried it out:

* AWS answered with an error of the client (4xx), or said that it was one
  request too many: nothing was done.
* No connection came about: nothing was done.
* The connection broke, the reply did not come in time or could not be read, or
  AWS failed internally (5xx): it may have been done, which is `OutcomeUnknown`.

AWS's own words are passed on, for they name the resource and the rule. Their
first line holds no secret: keys are never part of it, and the policies that forbid
something are encoded. The lines after it may: they repeat a request that was
signed wrongly, with its session token.
"""

from __future__ import annotations

import importlib
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
    "CAPACITY",
    "PERMISSION",
    "QUOTA",
    "CredentialsExpired",
    "Refused",
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
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestExpired",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
PERMISSION = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthException",
        "AuthFailure",
        "Blocked",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "PendingVerification",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
    }
)
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
# Something else is being done to the same thing; in a moment it will be over.
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
# From here on the fault is that of the server.
SERVER_FAULT = 500

# How AWS says that a group does not exist, or soon will not.
_GROUP_GONE = ("name not found", "group not found", "pending delet", "is being deleted")


class CredentialsExpired(PermissionDenied):
    """The credentials were good once, or have been replaced; others may be found where they were.

    Unlike other refusals it can pass without anybody's help.
    """

    retryable = True


class Refused(ProviderError):
    """AWS understood the request and did nothing; repeating it as it is does not help.

    Attributes:
        code: AWS's word for the error.
        words: AWS's sentence.
    """

    retryable = False

    def __init__(self, message: str, code: str, words: str) -> None:
        self.code = code
        self.words = words
        super().__init__(message)


# What AWS says, what that is to us, and what to do about it.
_ANSWERS: tuple[tuple[frozenset[str], type[ProviderError], str], ...] = (
    (THROTTLING, Throttled, "lower requests_per_second in plugin_config if that goes on"),
    (EXPIRED, CredentialsExpired, "renew the credentials where the SDK looks for them"),
    (PERMISSION, PermissionDenied, "`fleeting check aws` shows the policy that allows it"),
    (CAPACITY, OutOfCapacity, "another zone or instance type may have some"),
    (QUOTA, QuotaExceeded, "ask AWS for a higher quota of the account, or for less"),
    (BUSY, ProviderError, "it is tried again"),
)


def translate(error: Exception, what: str, *, mutates: bool) -> FleetingError:
    """Return the error that says the same in the words of `fleeting`.

    Args:
        error: of the SDK, or of what the SDK is built on.
        what: the request and the group, such as `SetDesiredCapacity of aws/eu-central-1/builders`.
        mutates: whether the request changes something.
    """
    exceptions = importlib.import_module("botocore.exceptions")
    if isinstance(error, FleetingError):
        return error
    if isinstance(error, exceptions.ClientError):
        return _answered(error, what, mutates=mutates)
    for names, make in _LOCAL:
        # Older versions of the SDK lack some.
        kinds = tuple(getattr(exceptions, name, type(None)) for name in names)
        if isinstance(error, kinds):
            return make(error, what)
    return _lost(error, what, exceptions, mutates=mutates)


def _answered(error: Any, what: str, *, mutates: bool) -> FleetingError:
    """Translate an answer of AWS."""
    response: Mapping[str, Any] = error.response
    code = str(response.get("Error", {}).get("Code", "")).removeprefix("Client.")
    words = _first_line(response.get("Error", {}).get("Message", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{what}: AWS says {code or status}" + (f": {words}" if words else "")
    for codes, make, advice in _ANSWERS:
        if code in codes:
            return make(f"{said}; {advice}")
    if status >= SERVER_FAULT:
        return _unknown(f"{said}; AWS failed internally", mutates=mutates)
    if any(phrase in words.lower() for phrase in _GROUP_GONE):
        return GroupGone(f"{said}; check name and region in plugin_config")
    return Refused(said, code, words)


def _unknown(said: str, *, mutates: bool) -> ProviderError:
    if mutates:
        return OutcomeUnknown(f"{said}, and whether the request was carried out is not known")
    return ProviderError(f"{said}; it is tried again")


def _no_credentials(error: Exception, what: str) -> FleetingError:
    return CredentialsExpired(
        f"{what}: no usable credentials: {_words(error)}; set profile or credentials_file in "
        "plugin_config, the AWS_ variables, or run on an instance with a role"
    )


def _misconfigured(error: Exception, what: str) -> FleetingError:
    return ConfigError(f"{what}: {_words(error)}; mend plugin_config or the SDK's configuration")


# What goes wrong before anything is sent.
_LOCAL = (
    (
        (
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
        ),
        _no_credentials,
    ),
    (
        (
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
        ),
        _misconfigured,
    ),
)


def _lost(error: Exception, what: str, exceptions: Any, *, mutates: bool) -> ProviderError:
    """Translate what happened on the way to AWS or back."""
    unconnected = exceptions.ConnectTimeoutError | exceptions.ProxyConnectionError
    if isinstance(error, unconnected) or (
        isinstance(error, exceptions.EndpointConnectionError) and _never_connected(error)
    ):
        return ProviderError(
            f"{what}: no connection to AWS: {_words(error)}; look at the network, and at region "
            "and endpoint_url in plugin_config"
        )
    if isinstance(error, exceptions.SSLError):
        return ProviderError(
            f"{what}: AWS cannot be trusted: {_words(error)}; look at AWS_CA_BUNDLE and proxies"
        )
    return _unknown(f"{what}: the answer was lost: {_words(error)}", mutates=mutates)


def _never_connected(error: Any) -> bool:
    """Return whether it failed before a connection was there; a reset has the same class."""
    # What the SDK was given by the library below, which it keeps for its message.
    cause = error.kwargs.get("error")
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    return not kinds.isdisjoint({"ClientConnectorError", "gaierror"})


def _words(error: Any) -> str:
    """Return the name of an error and what it says first."""
    # What is wrong with a parameter stands below a heading.
    report = error.kwargs.get("report") if hasattr(error, "kwargs") else None
    first = _first_line(report or error)
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _first_line(text: object) -> str:
    return next(iter(str(text).strip().splitlines()), "").strip().rstrip(".:")
