"""The HTTP server of the fake cloud: reads, checks, records and answers each call."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from aws_autoscaling import AutoScaling
from aws_connect import InstanceConnect
from aws_ec2 import Ec2
from aws_engine import NotModelled
from aws_errors import AccessDenied, AwsError, Fault, LostReply, LostRequest
from aws_journal import Call, Journal
from aws_shapes import answer_problems, request_problems
from aws_wire import (
    REQUEST_ID,
    BadRequest,
    Request,
    answer_body,
    error_body,
    read_request,
    service_model,
)

if TYPE_CHECKING:
    from aws_engine import World

__all__ = ("Hold", "Proxy", "Spoiler")

ANY = "*"
LOST = "lost"


@dataclass
class Spoiler:
    """A fault, and the calls that it affects.

    Attributes:
        operation: the operation, or `*`.
        fault: the fault.
        times: the remaining number of calls; None means all.
        access_key: for calls signed with this key only.
    """

    operation: str
    fault: Fault
    times: int | None
    access_key: str | None

    def strikes(self, call: Call) -> bool:
        """Return whether it affects a call, and count the call."""
        if self.operation not in {ANY, call.operation} or self.times == 0:
            return False
        if self.access_key not in {None, call.access_key}:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Hold:
    """Holds the answers of an operation.

    Attributes:
        operation: the operation.
        before: whether the request is held before it has an effect.
    """

    operation: str
    before: bool
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Answers AWS's clients on one port.

    Attributes:
        world: the cloud's state.
        journal: the recorded calls.
        problems: of requests and answers.
        spoilers: the injected faults.
        holds: the held operations.
        allowed: the allowed actions, such as `ec2:DescribeInstances`; None allows all.
        changed: notified when a call arrives or is answered.
    """

    def __init__(self, world: World) -> None:
        self.changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.forget(world)

    def forget(self, world: World) -> None:
        """Start again with a new world."""
        self.world = world
        self.journal = Journal()
        self.problems: list[str] = []
        self.spoilers: list[Spoiler] = []
        self.holds: list[Hold] = []
        self.allowed: frozenset[str] | None = None
        self.autoscaling = AutoScaling(world)
        self._services: dict[str, Any] = {
            "autoscaling": self.autoscaling,
            "ec2": Ec2(world),
            "ec2-instance-connect": InstanceConnect(world),
        }

    async def open(self) -> None:
        """Start listening."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        body = await http.read()
        try:
            request = read_request(http.headers, body)
        except (BadRequest, ValueError) as error:
            self.problems.append(f"request: {error}")
            return web.Response(status=400, text=f"{error}")
        call = self.journal.open(
            Call(request.service, request.operation.name, request.parameters, request.access_key)
        )
        await self._tell()
        outcome = LOST
        try:
            outcome, response = await self._answer(request, call)
        except _ConnectionLost:
            response = web.Response()
            if http.transport is not None:
                http.transport.abort()
        except Exception as error:
            self.problems.append(f"the fake cloud failed on {request.operation.name}: {error!r}")
            raise
        finally:
            self.journal.close(call, outcome)
            with suppress(asyncio.CancelledError):
                await self._tell()
        return response

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _answer(self, request: Request, call: Call) -> tuple[str, web.Response]:
        name, service = request.operation.name, request.service
        self.problems += request_problems(request.operation, request.parameters)
        await self._wait(name, before=True)
        faults = [spoiler.fault for spoiler in self.spoilers if spoiler.strikes(call)][:1]
        try:
            self._check_policy(service, name)
            for fault in faults:
                if error := fault.error(service, name):
                    raise error
                if isinstance(fault, LostRequest):
                    raise _ConnectionLost
            answer = await self._perform(request)
        except AwsError as error:
            await self._wait(name, before=False)
            return error.code, _error_response(service, error)
        except NotModelled as error:
            self.problems.append(f"{service}: {error}")
            code = "InternalFailure"
            return code, _error_response(service, AwsError(code, str(error), 500))
        body = answer_body(request.operation, answer)
        strangers = frozenset(self.world.strangers)
        self.problems += answer_problems(request.operation, answer, body, strangers)
        await self._wait(name, before=False)
        if any(isinstance(fault, LostReply) for fault in faults):
            raise _ConnectionLost
        return "ok", web.Response(body=body, headers=_headers(service))

    async def _perform(self, request: Request) -> dict[str, Any]:
        name, parameters = request.operation.name, dict(request.parameters)
        if request.region != self.world.region and request.service != "sts":
            raise AwsError(
                "SignatureDoesNotMatch",
                f"Credential should be scoped to a valid region, not '{request.region}'.",
                403,
            )
        if service := self._services.get(request.service):
            answer: dict[str, Any] = await service.answer(name, parameters)
            return answer
        answer = await self.world.engine.call(request.service, name, **parameters)
        if "QueueUrl" in answer:  # so that clients send the next request to this server
            answer["QueueUrl"] = f"{self.url}/{'/'.join(answer['QueueUrl'].split('/')[3:])}"
        return answer

    def _check_policy(self, service: str, operation: str) -> None:
        # An action has the name of its operation, without "Batch". The caller's identity is always
        # allowed.
        action = f"{service}:{operation.removesuffix('Batch')}"
        if self.allowed is not None and action not in {*self.allowed, "sts:GetCallerIdentity"}:
            raise AccessDenied().error(service, operation)

    async def _wait(self, operation: str, *, before: bool) -> None:
        for hold in list(self.holds):
            if hold.operation in {ANY, operation} and hold.before is before:
                await hold.released.wait()


class _ConnectionLost(Exception):
    """The connection breaks before the answer."""


def _error_response(service: str, error: AwsError) -> web.Response:
    body = error_body(service, error.code, error.message)
    return web.Response(status=error.status, body=body, headers=_headers(service))


def _headers(service: str) -> dict[str, str]:
    metadata = service_model(service).metadata
    if metadata["protocol"] == "json":
        kind = f"application/x-amz-json-{metadata['jsonVersion']}"
    else:
        kind = "text/xml;charset=UTF-8"
    return {"x-amzn-RequestId": REQUEST_ID, "Content-Type": kind}
