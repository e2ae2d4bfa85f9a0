"""Sends the requests of one group through threads, each with a deadline.

Each request that changes something carries a request id. Google does nothing when it
sees an id again, so a request whose answer was lost is sent once more at once.
"""

from __future__ import annotations

import logging
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from fleeting.errors import OutcomeUnknown, ProviderError
from fleeting_plugin_googlecloud._errors import (
    CredentialsUnusable,
    Missing,
    operation_error,
    translate,
    unanswered,
)
from fleeting_plugin_googlecloud._sdk import GoogleSdk, load_sdk
from fleeting_plugin_googlecloud._threads import RequestThreads, run_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from fleeting_plugin_googlecloud._config import GoogleConfig

__all__ = ("GoogleApi", "open_api")

T = TypeVar("T")

logger = logging.getLogger("fleeting")

# A request without an answer is repeated once, after about this many seconds.
PAUSE_SECONDS = 0.5
# The seconds between the questions whether an operation is done; after the last one it is taken
# for accepted, and the listing shows what comes of it.
POLLS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 4.0)

# Importing the SDK takes seconds on a busy machine.
LOAD_SECONDS = 120.0


class GoogleApi:
    """Sends requests for one group.

    Args:
        config: the plugin's configuration.
        sdk: the loaded SDK.

    Attributes:
        where: names the group in messages.
    """

    def __init__(self, config: GoogleConfig, sdk: GoogleSdk) -> None:
        self.config = config
        self.where = f"googlecloud/{config.project}/{config.place}/{config.name}"
        self._sdk = sdk
        self._threads = RequestThreads()
        self._renewing = anyio.Lock()

    async def read(self, service: str, method: str, **request: Any) -> dict[str, Any]:
        """Send a request that changes nothing, once more if it is not answered.

        Args:
            service: such as `instances`.
            method: as the SDK names it.
            **request: its fields, without the project.

        Raises:
            Missing: the resource does not exist.
            ProviderError: as described in `_errors`.
        """
        return await self._send(service, method, request, mutates=False)

    async def change(self, service: str, method: str, **request: Any) -> dict[str, Any]:
        """Send a request that changes something; return the operation that Google began.

        Args:
            service: such as `instances`.
            method: as the SDK names it, without `_unary`.
            **request: its fields, without the project; `request_id` is one of them.

        Raises:
            OutcomeUnknown: the request may have been carried out.
            ProviderError: the request was not carried out.
        """
        return await self._send(service, f"{method}_unary", request, mutates=True)

    async def finish(self, operation: Mapping[str, Any], what: str) -> None:
        """Wait a while until an operation is done: its error is part of it.

        If it is not done by then, it is accepted, and the listing shows what comes of it.

        Raises:
            ProviderError: Google refused it in the end.
        """
        current: Mapping[str, Any] = operation
        for seconds in POLLS:
            if current.get("status") == "DONE":
                break
            await anyio.sleep(seconds)
            try:
                current = await self._look(operation)
            except Missing:
                return  # Operations are forgotten some time after they ended.
            except ProviderError as error:
                logger.debug("group %s: %s", self.where, error)
        if current.get("status") == "DONE":
            failure = operation_error(current, f"{what} of {self.where}")
            if failure is not None:
                raise failure

    async def _look(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        name = str(operation["name"])
        if "zone" in operation:
            zone = str(operation["zone"]).rpartition("/")[2]
            return await self.read("zone_operations", "get", operation=name, zone=zone)
        region = str(operation.get("region", "")).rpartition("/")[2]
        return await self.read("region_operations", "get", operation=name, region=region)

    async def _send(
        self, service: str, method: str, request: Mapping[str, Any], *, mutates: bool
    ) -> dict[str, Any]:
        what = f"{service}.{method.removesuffix('_unary')} of {self.where}"
        fields = {"project": self.config.project, **request}
        seconds = self.config.request_timeout.total_seconds()
        sdk = self._sdk

        def send() -> dict[str, Any]:
            try:
                return sdk.call(service, method, fields, seconds)
            except Exception as error:  # noqa: BLE001 - any error of the SDK is translated
                failure = translate(error, what, mutates=mutates)
            # Not inside of the block: the SDK's error holds the answer, and that its connection.
            raise failure

        async with self._threads.turn():
            try:
                with anyio.fail_after(seconds):
                    try:
                        return await self._repeated(send)
                    except CredentialsUnusable:
                        sdk = await self._renew(sdk)
                        return await self._repeated(send)
            except TimeoutError:
                raise unanswered(
                    f"{what}: no answer within {seconds:g}s ({self._threads.hung} requests hang); "
                    "check the network",
                    mutates=mutates,
                ) from None

    async def _renew(self, used: GoogleSdk) -> GoogleSdk:
        """Look for credentials again: an operator or a tool may have renewed them."""
        async with self._renewing:
            if self._sdk is used:
                self._sdk = await self._threads.run(lambda: _load(self.config))
                used.close()
            return self._sdk

    def close(self) -> None:
        """Close all connections."""
        self._sdk.close()

    async def _repeated(self, send: Callable[[], T]) -> T:
        """Send a request, once more if it is not answered; the deadline is the caller's."""
        try:
            return await self._threads.run(send)
        except ProviderError as error:
            # Only these say nothing about the request itself.
            if type(error) not in {OutcomeUnknown, ProviderError}:
                raise
            first = error
        await anyio.sleep(PAUSE_SECONDS * (0.5 + random.random()))  # noqa: S311 - not a secret
        try:
            return await self._threads.run(send)
        except ProviderError:
            if isinstance(first, OutcomeUnknown):
                # Whatever prevented the second attempt, the first one may have succeeded.
                raise first from None
            raise


@asynccontextmanager
async def open_api(config: GoogleConfig) -> AsyncGenerator[GoogleApi]:
    """Load the SDK in a thread and yield what sends the requests. No request is sent yet.

    Raises:
        ProviderError: there are no usable credentials.
    """
    try:
        with anyio.fail_after(LOAD_SECONDS):
            sdk = await run_in_thread(lambda: _load(config))
    except TimeoutError:
        raise ProviderError(
            f"Google's SDK was not loaded within {LOAD_SECONDS:g}s; this machine is overloaded, or "
            "the metadata server does not answer"
        ) from None
    api = GoogleApi(config, sdk)
    try:
        yield api
    finally:
        api.close()


def _load(config: GoogleConfig) -> GoogleSdk:
    """Load the SDK; this blocks.

    Raises:
        ProviderError: there are no usable credentials.
    """
    where = f"group googlecloud/{config.project}/{config.place}/{config.name}"
    try:
        return load_sdk(config)
    except Exception as error:  # noqa: BLE001 - any error of the SDK is translated
        failure = translate(error, where, mutates=False)
    raise failure
