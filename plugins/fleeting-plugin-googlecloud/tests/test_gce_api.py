"""How requests are sent: deadlines, hung threads, repeated requests, cancellation."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fleeting.errors import OutcomeUnknown, PermissionDenied, ProviderError
from fleeting.types import Duration
from fleeting_plugin_googlecloud import _api
from fleeting_plugin_googlecloud._threads import RequestThreads, run_in_thread
from gce_faults import Hang, HttpFault, LostRequest, unauthorized, unavailable
from gce_plugin import configure, open_group, running_group, settle, states

if TYPE_CHECKING:
    from pathlib import Path

    from gce_cloud import GoogleCloud

pytestmark = pytest.mark.anyio

GET = "instances.get"
SHORT = Duration(seconds=2)


async def test_hung_requests_starve_nothing(
    cloud: GoogleCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that hang are given up, are counted, and hold up no others."""
    monkeypatch.setattr("fleeting_plugin_googlecloud._access.REUSE_SECONDS", 0.0)
    cloud.group(running=12)
    async with open_group(cloud, request_timeout=SHORT) as group:
        ids = list(states(await group.update()))
        cloud.fail(GET, Hang(), times=len(ids))
        errors: list[str] = []

        async def ask(id: str) -> None:
            try:
                await group.connect_info(id)
            except ProviderError as error:
                errors.append(str(error))

        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(ask, id)
        assert len(errors) == len(ids)
        assert all("no answer within 2s" in error for error in errors)
        assert any("requests hang" in error for error in errors)
        assert len((await group.update()).instances) == len(ids)


async def test_too_many_hung_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many threads left behind, no more are started until some of them end."""
    monkeypatch.setattr("fleeting_plugin_googlecloud._threads.MOST_HUNG", 2)
    threads = RequestThreads()
    released = threading.Event()

    async def hang() -> None:
        async with threads.turn():
            await threads.run(released.wait)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(hang)
        while threads._running < 2:
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert threads.hung == 2
    with pytest.raises(ProviderError, match="2 requests to Google hang and were given up"):
        async with threads.turn():
            pass
    released.set()
    while threads.hung:
        await anyio.sleep(0.01)
    async with threads.turn():
        assert await threads.run(lambda: 42) == 42


async def test_hung_threads_do_not_keep_the_process() -> None:
    """The threads are daemons, so a process can end although a request hangs."""
    assert await run_in_thread(lambda: threading.current_thread().daemon)


async def test_hung_change_is_unknown(cloud: GoogleCloud) -> None:
    """A change that is not answered in time may have been carried out."""
    cloud.group()
    async with open_group(cloud, request_timeout=SHORT) as group:
        cloud.fail("instanceGroupManagers.createInstances", Hang())
        with pytest.raises(OutcomeUnknown, match="may or may not have been carried out"):
            await group.increase(1, "one")
        assert await group.outcome("one") == 0


async def test_cancelled_request_is_left_behind(cloud: GoogleCloud) -> None:
    """A caller that is cancelled does not wait for its thread."""
    async with running_group(cloud, 1) as (group, _):
        cloud.fail("*", Hang(), times=2)
        with anyio.move_on_after(0.2) as scope:
            await group.update()
        assert scope.cancelled_caught
        assert len((await group.update()).instances) == 1


async def test_reads_are_repeated_once(cloud: GoogleCloud) -> None:
    """A read that is not answered is repeated once; a refusal is not."""
    async with running_group(cloud, 1) as (group, _):
        for fault in (unavailable(), LostRequest()):
            cloud.fail("instanceGroupManagers.get", fault)
            assert len((await group.update()).instances) == 1
        before = len(cloud.calls())
        cloud.fail("instanceGroupManagers.get", HttpFault(400, "invalid", "no"))
        with pytest.raises(ProviderError, match="400 invalid: no"):
            await group.update()
        assert len(cloud.calls("instanceGroupManagers.get", since=before)) == 1


async def test_nothing_listens(cloud: GoogleCloud) -> None:
    """Without a connection nothing was done, and the message names the endpoint's key."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(ProviderError, match=r"no connection to Google.*endpoint") as caught:
            await open_group(cloud, endpoint=url).__aenter__()
    assert type(caught.value) is ProviderError


async def test_answer_of_a_proxy(cloud: GoogleCloud) -> None:
    """An answer that is not JSON did not come from Google."""
    async with running_group(cloud, 1) as (group, _):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                for _ in range(2):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        body = b"<html>Sign in</html>"
                        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                        connection.sendall(head.encode() + body)

            thread = threading.Thread(target=serve)
            thread.start()
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(ProviderError, match="did not come from Google"):
                await open_group(cloud, endpoint=url).__aenter__()
            thread.join()
        assert len((await group.update()).instances) == 1


async def test_only_the_endpoint_is_asked(
    cloud: GoogleCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests go to the configured endpoint, also those about operations."""
    asked: list[Any] = []
    resolve = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with running_group(cloud, 1) as (group, ids):
        await group.increase(1, "one")
        await settle(cloud, group)
        await group.connect_info(ids[0])
        await group.suspend(ids)
        await settle(cloud, group)
        await group.decrease(ids)
    assert set(asked) == {"127.0.0.1"}


async def test_renewed_credentials_are_found(cloud: GoogleCloud, tmp_path: Path) -> None:
    """When Google refuses the credentials, the next ones are read from the file at once."""
    cloud.group(running=1)
    file = tmp_path / "credentials.json"
    good = cloud.credentials.read_text()
    file.write_text(good.replace("manager@", "someone@"))
    with pytest.raises(PermissionDenied, match="renew"):
        await open_group(cloud, credentials_file=file).__aenter__()
    file.write_text(good)
    async with open_group(cloud, credentials_file=file) as group:
        cloud.fail("*", unauthorized(), times=2)
        assert len((await group.update()).instances) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_both_event_loops(cloud: GoogleCloud, anyio_backend: str) -> None:
    """The plugin runs on asyncio and on trio."""
    async with running_group(cloud, 1) as (group, ids):
        await group.increase(1, anyio_backend)
        assert len(states(await settle(cloud, group))) == 2
        assert (await group.connect_info(ids[0])).private_key
        assert (await group.decrease(ids)).count == 1


async def test_closing_ends_all_connections(cloud: GoogleCloud) -> None:
    """Instances stay when a group is closed, and it can be opened again."""
    async with running_group(cloud, 1):
        pass
    async with open_group(cloud) as group:
        assert len((await group.update()).instances) == 1


def test_where_names_the_group(cloud: GoogleCloud, tmp_path: Path) -> None:
    """The id of a group has its project and place, so it is unique."""
    del tmp_path
    api = _api.GoogleApi(configure(cloud, regional=True), sdk=None)  # type: ignore[arg-type] # it is not used here
    assert api.where == "googlecloud/builders-project/europe-west1/builders"
