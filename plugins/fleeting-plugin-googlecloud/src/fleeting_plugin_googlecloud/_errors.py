"""Translates the SDK's errors, and those in Google's answers, into those of `fleeting`.

A request that reads can be repeated after any failure. For a request that changes
something, it matters whether Google may have carried it out:

* Google answered with a client error (4xx): not done.
* There were no usable credentials, or no connection was established: not done.
* The connection broke, the reply was late or unreadable, or Google failed internally
  (5xx): it may have been done, which is `OutcomeUnknown`.

Google refuses one request too many with 403 and `rateLimitExceeded`. The same status
means a used up quota or a missing permission; only the reason tells.

Most failures do not come as an HTTP status at all. They are in an operation that is
done, or in the last attempt to create a member; both have a code and a message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fleeting.errors import (
    GroupGone,
    OutcomeUnknown,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = (
    "CredentialsUnusable",
    "Missing",
    "RequestRefused",
    "StaleFingerprint",
    "classify",
    "codes_of",
    "gone",
    "operation_error",
    "translate",
    "unanswered",
)

_RATE = frozenset({"ratelimitexceeded", "userratelimitexceeded", "rate_limit_exceeded"})
_QUOTA = frozenset({"quotaexceeded", "quota_exceeded", "limitexceeded"})
# Google's own message about a quota that counts requests, and not resources.
_PER_MINUTE = re.compile(r"quota metric .*per minute", re.IGNORECASE)
_CLOCK = re.compile(r"reasonable timeframe|iat and exp|clock|issued in the future", re.IGNORECASE)
_REQUEST = re.compile(r"^[A-Z]+ https?://\S+: ")

LONGEST_TEXT = 500
SERVER_FAULT = 500

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, PRECONDITION, TOO_MANY = 401, 403, 404, 412, 429


class CredentialsUnusable(PermissionDenied):
    """There are no credentials, or they are not valid any more.

    Unlike other refusals, a retry can succeed: renewed credentials may be found.
    """

    retryable = True


class RequestRefused(ProviderError):
    """Google refused the request and did nothing. Repeating it unchanged does not help.

    Attributes:
        code: Google's reason, such as `invalid` or `RESOURCE_NOT_READY`.
    """

    retryable = False

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


class Missing(ProviderError):
    """The resource does not exist."""

    retryable = False


class StaleFingerprint(ProviderError):
    """Another client has changed the resource since it was read; nothing was done."""


# Google's HTTP statuses, our error class for them, and what to do about it.
_STATUSES: dict[int, tuple[type[ProviderError], str]] = {
    UNAUTHORIZED: (CredentialsUnusable, "renew the credentials where the SDK finds them"),
    FORBIDDEN: (PermissionDenied, "`fleeting check googlecloud` shows the role that allows it"),
    PRECONDITION: (StaleFingerprint, "it will be retried"),
    TOO_MANY: (Throttled, "if this persists, ask Google to raise the request rate"),
}


def translate(error: Exception, what: str, *, mutates: bool) -> ProviderError:
    """Return the corresponding error of `fleeting`.

    Args:
        error: raised by the SDK or a library below it.
        what: the request and the group, such as `createInstances of googlecloud/p/z/builders`.
        mutates: whether the request changes something.
    """
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests.exceptions

    if isinstance(error, google.api_core.exceptions.GoogleAPICallError):
        return _answer(error, what, mutates=mutates)
    if isinstance(error, google.auth.exceptions.GoogleAuthError) and _is_passing(error):
        return ProviderError(
            f"{what}: the credentials could not be renewed: {_summary(error)}; check the network"
        )
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return _credentials(error, what)
    if isinstance(error, requests.exceptions.RequestException):
        return _connection(error, what, mutates=mutates)
    if type(error).__name__ == "ParseError":  # Neither JSON nor what the SDK expects in it.
        return unanswered(
            f"{what}: the answer did not come from Google; see whether a proxy or the sign-in page "
            "of a network answers in its place",
            mutates=mutates,
        )
    return unanswered(f"{what}: the request failed: {_summary(error)}", mutates=mutates)


def _answer(error: Any, what: str, *, mutates: bool) -> ProviderError:
    """Translate an error that Google answered with."""
    status = int(error.code or 0)
    details: Iterable[Any] = error.errors or ()
    reasons = [str(one.get("reason", "")) for one in details if isinstance(one, dict)]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - what an answer contains
    reason = reasons[0] if reasons else str(status)
    # The SDK puts the request before Google's own words.
    text = _REQUEST.sub("", _line(error.message))
    message = f"{what}: Google answered {status} {reason}" + (f": {text}" if text else "")
    known = {one.lower() for one in reasons}
    if known & _RATE or _PER_MINUTE.search(text):
        status = TOO_MANY
    if status == FORBIDDEN and known & _QUOTA:
        return QuotaExceeded(f"{message}; ask Google to raise the project's quota")
    if status >= SERVER_FAULT:
        return unanswered(f"{message}; Google failed internally", mutates=mutates)
    if status in _STATUSES:
        make, advice = _STATUSES[status]
        return make(f"{message}; {advice}")
    return Missing(message) if status == NOT_FOUND else RequestRefused(message, reason)


def _is_passing(error: Any) -> bool:
    """Return whether the service that gives tokens failed, or could not be reached."""
    return type(error).__name__ == "TransportError" or bool(getattr(error, "retryable", False))


def _credentials(error: Exception, what: str) -> ProviderError:
    text = _summary(error)
    if _CLOCK.search(str(error)):
        return CredentialsUnusable(
            f"{what}: Google does not accept the credentials: {text}; set the clock of this "
            "machine, for example with NTP"
        )
    if type(error).__name__ == "DefaultCredentialsError":
        return CredentialsUnusable(
            f"{what}: no usable credentials: {text}; set credentials_file in plugin_config or "
            "GOOGLE_APPLICATION_CREDENTIALS, or run on an instance with a service account"
        )
    return CredentialsUnusable(
        f"{what}: Google does not accept the credentials: {text}; renew them where the SDK finds "
        "them"
    )


def _connection(error: Exception, what: str, *, mutates: bool) -> ProviderError:
    """Translate a failure on the way to Google or back."""
    import requests.exceptions

    if isinstance(error, requests.exceptions.SSLError):
        return ProviderError(
            f"{what}: the TLS certificate could not be verified: {_summary(error)}; check "
            "REQUESTS_CA_BUNDLE and proxies"
        )
    never_connected = requests.exceptions.ConnectTimeout | requests.exceptions.ProxyError
    if isinstance(error, never_connected) or "NewConnectionError" in repr(error.args):
        return ProviderError(
            f"{what}: no connection to Google: {_summary(error)}; check the network, and endpoint "
            "in plugin_config"
        )
    return unanswered(f"{what}: the answer was lost: {_summary(error)}", mutates=mutates)


def unanswered(message: str, *, mutates: bool) -> ProviderError:
    """Return the error for a request without an answer that counts."""
    if mutates:
        return OutcomeUnknown(f"{message}; the request may or may not have been carried out")
    return ProviderError(f"{message}; it will be retried")


def gone(name: str) -> GroupGone:
    """Return the error for a group that does not exist any more.

    Args:
        name: the id of the group.
    """
    return GroupGone(
        f"group {name} does not exist any more; create it again and restart the manager, or change "
        "name in plugin_config"
    )


# Parts of Google's codes, our error class for them, and what to do about it. The first that fits
# counts.
_CODES: tuple[tuple[tuple[str, ...], type[ProviderError], str], ...] = (
    (
        ("RESOURCE_POOL_EXHAUSTED", "INSUFFICIENT_CAPACITY", "STOCKOUT"),
        OutOfCapacity,
        "another zone or machine type may have capacity",
    ),
    (
        ("RATE_EXCEEDED", "RATE_LIMIT_EXCEEDED"),
        Throttled,
        "it will be retried",
    ),
    (
        ("IP_SPACE_EXHAUSTED",),
        QuotaExceeded,
        "the subnetwork has no free addresses; use a larger one",
    ),
    (("QUOTA",), QuotaExceeded, "ask Google to raise the project's quota, or use less"),
    (
        ("PERMISSIONS_ERROR", "PERMISSION_DENIED"),
        PermissionDenied,
        "grant the group's own service agent the permission that the message names",
    ),
)
_EXTERNAL_ADDRESS = "constraints/compute.vmExternalIpAccess"
_RESERVATION = re.compile(r"\breservations?\b|ReservationAffinity", re.IGNORECASE)


def classify(code: str, message: str, what: str) -> ProviderError | None:
    """Return the error for a code in an operation or a last attempt; None if it is unknown.

    Args:
        code: such as `ZONE_RESOURCE_POOL_EXHAUSTED`.
        message: Google's explanation.
        what: what failed.
    """
    text = f"{what}: {code}: {_line(message)}"
    for parts, make, advice in _CODES:
        if any(part in code for part in parts):
            return make(f"{text}; {advice}")
    if code == "CONDITION_NOT_MET":
        advice = "correct the instance template, or the policy that the message names"
        if _EXTERNAL_ADDRESS in message:
            advice = (
                "a policy of the organization forbids external addresses; use an instance template "
                "without them"
            )
        return RequestRefused(f"{text}; {advice}", code)
    if _RESERVATION.search(message):
        return OutOfCapacity(f"{text}; correct the reservation, or the template that uses it")
    return None


def codes_of(operation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the codes and messages of the errors in an operation."""
    errors = operation.get("error", {}).get("errors", ())
    return [(str(one.get("code", "")), str(one.get("message", ""))) for one in errors]


def operation_error(operation: Mapping[str, Any], what: str) -> ProviderError | None:
    """Return why an operation failed; None if it did not.

    Args:
        operation: as Google describes it.
        what: what the operation was to do, and where.
    """
    found = codes_of(operation)
    if not found:
        status = int(operation.get("httpErrorStatusCode", 0))
        if not status:
            return None
        return RequestRefused(
            f"{what}: {status} {_line(str(operation.get('httpErrorMessage', '')))}", str(status)
        )
    known = [error for code, text in found if (error := classify(code, text, what)) is not None]
    if known:
        return known[-1]
    code, text = found[-1]
    return RequestRefused(f"{what}: {code}: {_line(text)}", code)


def _summary(error: Exception) -> str:
    """Return the name of an error and the first line of its message."""
    first = _line(error.args[0] if error.args else "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _line(text: object) -> str:
    """Return the first line of a text: later ones can repeat a request with its token."""
    first = next(iter(str(text).strip().splitlines()), "")
    return first.strip().rstrip(".:;")[:LONGEST_TEXT]
