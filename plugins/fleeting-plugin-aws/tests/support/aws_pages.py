"""Servers on the loopback interface that are not AWS: instance metadata, proxies, web pages."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import ClientSession, web

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ("forward_proxy", "instance_metadata", "one_page")


@asynccontextmanager
async def _serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncGenerator[str]:
    """Serve all requests by one function; yield the URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def instance_metadata(zone: str) -> AsyncGenerator[str]:
    """Serve the metadata of an instance in a zone, to requests with a token only (IMDSv2)."""
    token = "made-up-token"  # noqa: S105 - made up

    async def handler(request: web.Request) -> web.Response:
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            return web.Response(text=token)
        if request.headers.get("x-aws-ec2-metadata-token") != token:
            return web.Response(status=401)
        if request.path == "/latest/meta-data/placement/availability-zone/":
            return web.Response(text=zone)
        return web.Response(status=404)

    async with _serving(handler) as url:
        yield url


@asynccontextmanager
async def forward_proxy(target: str) -> AsyncGenerator[tuple[str, list[str]]]:
    """Forward requests to a server, whatever host they name; yield the URL and those hosts."""
    hosts: list[str] = []

    async with ClientSession() as session:

        async def handler(request: web.Request) -> web.Response:
            hosts.append(request.host)
            # The signature is of the host that the client named.
            headers = {key: value for key, value in request.headers.items() if key != "Host"}
            sent = session.request(
                request.method,
                target + request.path,
                data=await request.read(),
                headers=headers | {"Host": request.host},
            )
            async with sent as answer:
                body = await answer.read()
                kind = answer.headers["Content-Type"]
                headers = {"Content-Type": kind, "x-amzn-requestid": "1"}
                return web.Response(status=answer.status, body=body, headers=headers)

        async with _serving(handler) as url:
            yield url, hosts


@asynccontextmanager
async def one_page(body: str, kind: str, status: int = 200) -> AsyncGenerator[str]:
    """Answer every request with the same page; yield the URL."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, body=body.encode(), headers={"Content-Type": kind})

    async with _serving(handler) as url:
        yield url
