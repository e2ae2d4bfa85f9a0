"""Sends requests to AWS, with retries and with credentials that are renewed.

Clients are made when a group is opened and live as long as the group. When AWS
says that the credentials have expired, or when an assumed role is about to
expire, the next request gets new clients, which look for credentials again. So
credentials that an operator or a tool has renewed in the meantime are found.
The old clients are closed when their last request has ended.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import sniffio

from fleeting.errors import ConfigError, ProviderError, Throttled
from fleeting_plugin_aws._errors import CredentialsExpired, Refused, translate
from fleeting_plugin_aws._limiter import Limiter, Shared, pause
from fleeting_plugin_aws._session import client_options, find_region, method_name, new_session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from fleeting_plugin_aws._config import AwsConfig

__all__ = ("Clients", "open_clients", "server_time")

SERVICES = ("autoscaling", "ec2", "ec2-instance-connect")

# Many connections at once must not delay a removal, which ends costs.
ONE_BY_ONE = frozenset({"GetConsoleOutput", "GetPasswordData", "SendSSHPublicKey"})

# An assumed role is assumed again this long before it expires.
ROLE_MARGIN = timedelta(minutes=5)

CLOSE_SECONDS = 5.0


@dataclass(slots=True)
class _Generation:
    """The clients that were made with the same credentials.

    Attributes:
        stack: closes the clients.
        clients: by service.
        renew_at: when to stop using them; None if that is unknown.
        users: the number of requests that use them now.
        retired: whether newer clients have replaced them.
    """

    stack: AsyncExitStack
    clients: dict[str, Any] = field(default_factory=dict[str, Any])
    renew_at: datetime | None = None
    users: int = 0
    retired: bool = False


class Clients:
    """Sends the requests of one group, each with the newest credentials.

    Attributes:
        region: the region that requests go to.
        limiter: limits the request rate; replaced as soon as the account is known.
        where: names the group in messages; includes the account as soon as it is known.
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
        self._first_session: Any = session
        self._services = services
        self.where = f"aws/{region}/{config.name}"
        self._lock = anyio.Lock()
        self._generation: _Generation | None = None

    def join_account(self, account: str) -> None:
        """Share the request limit of an account with all its groups in this region."""
        self.limiter = self._shared.limiter(
            account, self.region, self._config.endpoint_url or "", self._config.requests_per_second
        )

    @property
    def profile(self) -> str | None:
        """Return the profile of the SDK's configuration that is used, if one is."""
        profile: str | None = self._first_session.profile
        return profile

    @property
    def partition(self) -> str:
        """Return the partition of the region, such as `aws-cn`, as the SDK knows it."""
        try:
            partition: str = self._first_session.get_partition_for_region(self.region)
        except Exception:  # noqa: BLE001 - the SDK does not know the region
            return "aws"
        return partition

    async def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request that changes nothing. It is repeated if it fails for a passing reason.

        Args:
            service: such as `ec2`.
            operation: as named in AWS's documentation, such as `DescribeInstances`.
            **parameters: of the request.

        Raises:
            ProviderError: as described in `_errors`.
        """
        return await self._send(service, operation, parameters, mutates=False)

    async def change(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send a request that changes something; see `ask`.

        It is only repeated if AWS refused it because there were too many requests.

        Raises:
            OutcomeUnknown: the request may have been carried out.
            ProviderError: the request was not carried out.
        """
        return await self._send(service, operation, parameters, mutates=True)

    async def _send(
        self, service: str, operation: str, parameters: Mapping[str, Any], *, mutates: bool
    ) -> dict[str, Any]:
        attempt = 1
        renewed = False
        while True:
            await self.limiter.wait(one_by_one=operation in ONE_BY_ONE)
            generation: _Generation | None = None
            try:
                generation = await self._current()
                return await _call(generation, service, operation, parameters)
            except Exception as error:  # noqa: BLE001 - any error of the SDK is translated
                failure = self._failure(error, service, operation, mutates=mutates)
            if isinstance(failure, Throttled):
                self.limiter.exhaust(anyio.current_time())
            if isinstance(failure, CredentialsExpired):
                if renewed or generation is None:
                    raise failure
                # AWS did nothing, and newer credentials may be available by now.
                generation.renew_at = datetime.now(UTC)
                renewed = True
                continue
            repeatable = failure.retryable and (isinstance(failure, Throttled) or not mutates)
            if not repeatable or attempt >= self._config.max_attempts:
                raise failure
            await anyio.sleep(pause(attempt, random.random()))  # noqa: S311 - not a secret
            attempt += 1

    def _failure(
        self, error: Exception, service: str, operation: str, *, mutates: bool
    ) -> ProviderError:
        """Translate an error into one that a group may raise; one of the configuration is final."""
        failure = translate(
            error,
            f"{operation} of {self.where}",
            mutates=mutates,
            action=f"{service}:{operation.removesuffix('Batch')}",
            profile=self.profile,
        )
        if isinstance(failure, ProviderError):
            return failure
        return Refused(str(failure), type(error).__name__, "")

    async def _current(self) -> _Generation:
        """Return the clients to use; makes new ones if the old ones have to be renewed."""
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
            session = await self._session()
            for service in self._services:
                client = session.create_client(
                    service, **client_options(self._config, self.region), **keys
                )
                generation.clients[service] = await stack.enter_async_context(client)
            generation.stack = stack.pop_all()
            return generation

    async def _assume(self, role: str) -> tuple[dict[str, str], datetime]:
        """Return the keys of a role, and when to assume it again."""
        session = await self._session()
        options = client_options(self._config, self.region)
        asked = {"RoleArn": role, "RoleSessionName": "fleeting"}
        if self._config.external_id is not None:
            asked["ExternalId"] = self._config.external_id
        async with session.create_client("sts", **options) as client:
            answer = await client.assume_role(**asked)
        given = answer["Credentials"]
        keys = {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }
        return keys, given["Expiration"] - ROLE_MARGIN

    async def _session(self) -> Any:
        """Return the session for the next clients.

        A session keeps the credentials that it has found, so only the first clients use the
        session that the group was opened with.
        """
        if self._generation is None:
            return self._first_session
        return await new_session(self._config, self._shared)

    async def aclose(self) -> None:
        """Close all connections."""
        generation, self._generation = self._generation, None
        if generation is not None:
            await _close(generation)


@asynccontextmanager
async def open_clients(config: AwsConfig, shared: Shared, *more: str) -> AsyncGenerator[Clients]:
    """Load the SDK in a thread and return clients. No request is sent yet.

    Args:
        config: the plugin's configuration.
        shared: what the groups of a provider share.
        *more: services in addition to those that every group needs.

    Raises:
        ConfigError: the SDK's configuration cannot be used, or there is no region.
    """
    if sniffio.current_async_library() != "asyncio":
        raise ConfigError(
            "plugin 'aws' runs on asyncio only: start the manager on asyncio instead of "
            f"{sniffio.current_async_library()}"
        )
    try:
        session = await new_session(config, shared)
        region = await find_region(config, session)
    except Exception as error:  # noqa: BLE001 - any error of the SDK is translated
        raise translate(error, "plugin_config", mutates=False) from None
    if not region:
        raise ConfigError(
            "plugin_config.region: not set, and neither the SDK's configuration, AWS_REGION nor "
            "the metadata of this instance name a region; set it, for example "
            'region = "eu-central-1"'
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
    """Return when AWS answered, by AWS's clock; by this machine's clock if AWS did not say."""
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)


async def _call(
    generation: _Generation, service: str, operation: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Send a request once."""
    generation.users += 1
    try:
        method = getattr(generation.clients[service], method_name(operation))
        answer: dict[str, Any] = await method(**parameters)
        return answer
    finally:
        generation.users -= 1
        if generation.retired and not generation.users:
            await _close(generation)


async def _close(generation: _Generation) -> None:
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await generation.stack.aclose()
