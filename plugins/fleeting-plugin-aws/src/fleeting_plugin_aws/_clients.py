"""Talks to AWS: the clients of one group, and how a request is sent.

The clients are made when a group is opened and live as long as it does. When
AWS says that the credentials have expired, or an assumed role is about to,
the next request gets new clients, whose credentials are looked for anew: so
what an operator or a tool has renewed in the meantime is found. The old ones
are closed when the last request that uses them has ended.
"""

from __future__ import annotations

import importlib
import logging
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import sniffio

from fleeting.errors import ConfigError, FleetingError, ProviderError, Throttled
from fleeting_plugin_aws._errors import CredentialsExpired, Refused, translate
from fleeting_plugin_aws._limiter import Limiter, Shared, pause

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from fleeting_plugin_aws import AwsConfig

__all__ = ("Clients", "open_clients", "server_time")

SERVICES = ("autoscaling", "ec2", "ec2-instance-connect")
# Those whose description is large enough to be noticed when it is read.
LARGE_SERVICES = ("autoscaling", "ec2")

# An assumed role is assumed again so long before it expires.
ROLE_MARGIN = timedelta(minutes=5)

CONNECTIONS = 32
CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Generation:
    """The clients that were made with the same credentials.

    Attributes:
        stack: closes them.
        clients: by service.
        renew_at: when they should not be used any more; None if that is not known.
        users: how many requests are using them.
        retired: whether there are newer ones.
    """

    stack: AsyncExitStack
    clients: dict[str, Any] = field(default_factory=dict[str, Any])
    renew_at: datetime | None = None
    users: int = 0
    retired: bool = False


class Clients:
    """Sends requests, each with the credentials that are the newest.

    Attributes:
        region: where to.
        limiter: whose turn it is; replaced as soon as the account is known.
        where: names the group in messages; with its account as soon as that is known.
    """

    def __init__(
        self,
        config: AwsConfig,
        shared: Shared,
        session: Any,
        region: str,
        services: Sequence[str],
    ) -> None:
        self.region = region
        self.limiter = Limiter(config.requests_per_second)
        self._config = config
        self._shared = shared
        self._session = session
        self._services = services
        self.where = f"aws/{region}/{config.name}"
        self._lock = anyio.Lock()
        self._generation: _Generation | None = None

    async def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request that changes nothing, a few times if need be.

        Args:
            service: such as `ec2`.
            operation: its name in AWS's documentation, such as `DescribeInstances`.
            **parameters: of the request.

        Raises:
            ProviderError: as `_errors` says.
            ConfigError: the SDK cannot even try.
        """
        return await self._send(service, operation, parameters, mutates=False)

    async def change(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request that changes something; see `ask`.

        It is sent again only if AWS has said that it was one too many.

        Raises:
            OutcomeUnknown: it may have been carried out.
            ProviderError: it was not.
        """
        return await self._send(service, operation, parameters, mutates=True)

    async def _send(
        self, service: str, operation: str, parameters: Mapping[str, Any], *, mutates: bool
    ) -> dict[str, Any]:
        attempt = 1
        renewed = False
        while True:
            await self.limiter.wait()
            generation: _Generation | None = None
            try:
                generation = await self._current()
                return await _call(generation, service, operation, parameters)
            except Exception as error:  # noqa: BLE001 - all that an SDK may raise is translated
                failure = _provider_error(error, f"{operation} of {self.where}", mutates=mutates)
            if isinstance(failure, Throttled):
                self.limiter.exhaust(anyio.current_time())
            if isinstance(failure, CredentialsExpired):
                if renewed or generation is None:
                    raise failure
                # Nothing was done, and there may be better ones by now.
                generation.renew_at = datetime.now(UTC)
                renewed = True
                continue
            again = failure.retryable and (isinstance(failure, Throttled) or not mutates)
            if not again or attempt >= self._config.max_attempts:
                raise failure
            await anyio.sleep(pause(attempt, random.random()))  # noqa: S311 - no secret
            attempt += 1

    async def _current(self) -> _Generation:
        """Return the clients to use, new ones if the old ones are of no use any more."""
        async with self._lock:
            now = datetime.now(UTC)
            old = self._generation
            if old is not None and (old.renew_at is None or now < old.renew_at):
                return old
            self._generation = new = await self._make()
            if old is not None:
                old.retired = True
                if not old.users:
                    await _close(old)
            return new

    async def _make(self) -> _Generation:
        async with AsyncExitStack() as stack:
            generation = _Generation(stack)
            keys: dict[str, str] = {}
            if self._config.assume_role_arn is not None:
                keys, generation.renew_at = await self._assume(self._config.assume_role_arn)
            session = (
                self._session
                if self._generation is None
                else await _new_session(self._config, self._shared)
            )
            for service in self._services:
                client = session.create_client(service, **self._options(), **keys)
                generation.clients[service] = await stack.enter_async_context(client)
            generation.stack = stack.pop_all()
            return generation

    async def _assume(self, role: str) -> tuple[dict[str, str], datetime]:
        """Return the keys of a role, and when to assume it again."""
        session = (
            self._session
            if self._generation is None
            else await _new_session(self._config, self._shared)
        )
        async with session.create_client("sts", **self._options()) as client:
            answer = await client.assume_role(RoleArn=role, RoleSessionName="fleeting")
        given = answer["Credentials"]
        keys = {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }
        return keys, given["Expiration"] - ROLE_MARGIN

    def _options(self) -> dict[str, Any]:
        config = importlib.import_module("aiobotocore.config")
        return {
            "region_name": self.region,
            "endpoint_url": self._config.endpoint_url,
            "config": config.AioConfig(
                # Whether to send something again is for `_send` to decide: it knows what
                # changes something, and asks the limiter for each attempt.
                retries={"mode": "standard", "total_max_attempts": 1},
                connect_timeout=self._config.connect_timeout.total_seconds(),
                read_timeout=self._config.read_timeout.total_seconds(),
                max_pool_connections=CONNECTIONS,
                user_agent_extra="fleeting-plugin-aws",
            ),
        }

    async def aclose(self) -> None:
        """Close all connections."""
        generation, self._generation = self._generation, None
        if generation is not None:
            await _close(generation)


@asynccontextmanager
async def open_clients(config: AwsConfig, shared: Shared, *more: str) -> AsyncGenerator[Clients]:
    """Load the SDK, in a thread, and be ready to send requests.

    Args:
        config: the plugin's.
        shared: what the groups of a provider have in common.
        *more: services beside those that every group needs.

    Raises:
        ConfigError: the SDK's configuration cannot be used, or there is no region.
    """
    if sniffio.current_async_library() != "asyncio":
        raise ConfigError("plugin 'aws' runs on asyncio only; run the manager on that event loop")
    try:
        session = await _new_session(config, shared)
        region = config.region or session.get_config_variable("region")
    except Exception as error:  # noqa: BLE001 - all that an SDK may raise is translated
        raise translate(error, "plugin_config", mutates=False) from None
    if not region:
        raise ConfigError(
            "plugin_config.region: it is not set, and neither the SDK's configuration nor "
            'AWS_REGION names one; write for instance region = "eu-central-1"'
        )
    services = [*SERVICES, *more]
    if config.interruption_queue_url is not None:
        services.append("sqs")
    clients = Clients(config, shared, session, region, services)
    try:
        yield clients
    finally:
        await clients.aclose()


def server_time(answer: Mapping[str, Any]) -> datetime:
    """Return the time at which AWS answered, by its own clock if it told."""
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)


async def _new_session(config: AwsConfig, shared: Shared) -> Any:
    return await anyio.to_thread.run_sync(_load_session, config, shared)


def _load_session(config: AwsConfig, shared: Shared) -> Any:
    """Import the SDK and read its files: half a second of work the first time."""
    for name in ("aiobotocore", "botocore"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            # Below that it logs requests and answers as they are, with keys and tokens.
            logger.setLevel(logging.INFO)
    session = importlib.import_module("aiobotocore.session").AioSession()
    for variable in ("profile", "config_file", "credentials_file"):
        value = getattr(config, variable)
        if value is not None:
            session.set_config_variable(variable, str(value))
    session.get_scoped_config()  # Which complains of what cannot be used.
    if shared.loader is None:
        shared.loader = session.get_component("data_loader")
    session.register_component("data_loader", shared.loader)
    shared.loader.load_data("endpoints")
    for service in LARGE_SERVICES:
        shared.loader.load_service_model(service, "service-2")
    return session


async def _call(
    generation: _Generation, service: str, operation: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Send a request once."""
    generation.users += 1
    try:
        method = getattr(generation.clients[service], _snake(operation))
        answer: dict[str, Any] = await method(**parameters)
        return answer
    finally:
        generation.users -= 1
        if generation.retired and not generation.users:
            await _close(generation)


async def _close(generation: _Generation) -> None:
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await generation.stack.aclose()


def _provider_error(error: Exception, what: str, *, mutates: bool) -> ProviderError:
    """Return the error as one that a group may raise; what is misconfigured is not retried."""
    failure: FleetingError = translate(error, what, mutates=mutates)
    if isinstance(failure, ProviderError):
        return failure
    return Refused(str(failure), type(error).__name__, "")


def _snake(operation: str) -> str:
    """Return the name of a client's method for an operation, as the SDK makes it."""
    name: str = importlib.import_module("botocore").xform_name(operation)
    return name
