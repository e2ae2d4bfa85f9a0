"""A fake Compute Engine that the real SDK talks to over HTTP on the loopback interface.

Every request and every answer is checked against Google's published description; whatever
does not fit is a problem, and fails the test. It runs in a thread of its own, so tests can
look at its state, and change it, while the plugin waits for an answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud_machines import Machines, new_key
from gce_api import PERMISSIONS, answer
from gce_discovery import contract
from gce_faults import Fault, Hang, HttpFault, LostReply, LostRequest, OperationFault
from gce_state import FakeGroup, FakeMachine, Pace, Refusal
from gce_world import Call, World

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    import asyncssh

    from gce_state import FakeMember

__all__ = ("PROJECT", "REGION", "ZONE", "GoogleCloud")

PROJECT = "builders-project"
ZONE = "europe-west1-b"
REGION = "europe-west1"
ACCOUNT = f"manager@{PROJECT}.iam.gserviceaccount.com"
START_SECONDS = 30


class GoogleCloud(World):
    """The fake cloud.

    Attributes:
        problems: requests and answers that do not fit Google's description.
        credentials: a file with the key of a service account.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # Changes of machines that the loop has to make.
        self._steps: deque[Coroutine[Any, Any, None]] = deque()
        self.reset()
        self.url = ""
        self.credentials: Path
        self._contract = contract()
        self._loop = asyncio.new_event_loop()
        self._machines: Machines
        self._started = threading.Event()
        self._machine_step: asyncio.Task[None] | None = None
        self._spares: dict[str, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, name="AnyIO worker thread of the cloud")
        self._thread.start()
        assert self._started.wait(START_SECONDS)

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            self.clear()
            self.engine.started = self._start_machine
            self.engine.stopped = self._stop_machine
            self.engine.new_machine = self._prepare_machine
            self.problems: list[str] = []
            self.allowed: set[str] | None = None
            # Whether answers may have words that Google does not document yet.
            self.lenient = False
            self._calls: list[Call] = []
            self._faults: list[tuple[str, Fault | None, int | None]] = []
            self._tokens: set[str] = set()
            self._addresses: dict[str, str] = {}
            self._host_keys: dict[str, asyncssh.SSHKey] = {}
            self._has_machines = False
            self._released = getattr(self, "_released", None) or threading.Event()
            self._released.set()
            self._released = threading.Event()

    # The arrangements of tests.

    def group(
        self,
        name: str = "builders",
        *,
        regional: bool = False,
        zones: tuple[str, ...] = (),
        running: int = 0,
        pace: Pace | None = None,
        **settings: Any,
    ) -> FakeGroup:
        """Create a group with running instances; `settings` are parts of its description."""
        with self.lock:
            if pace is not None:
                self.engine.pace = pace
            zones = zones or ((f"{REGION}-b", f"{REGION}-c") if regional else (ZONE,))
            region = zones[0].rpartition("-")[0] if regional else None
            group = FakeGroup(name, zones, region, settings)
            self.groups[group.place, name] = group
            if running:
                self.engine.create(group, [f"{name}-old{number}" for number in range(running)])
                self.engine.settle()
            return group

    def settle(self) -> None:
        """Do everything that is under way."""
        with self.lock:
            self.engine.settle()

    def fail(self, name: str, fault: Fault, *, times: int | None = 1) -> None:
        """Let requests fail.

        Args:
            name: of the method, or `*` for all.
            fault: what happens.
            times: how often; None for always.
        """
        with self.lock:
            self._faults.append((name, fault, times))

    def fail_later(self, name: str, fault: Fault, *, after: int) -> None:
        """Let one request fail, after a number of others to the same method."""
        with self.lock:
            self._faults += [(name, None, after), (name, fault, 1)]

    def mend(self) -> None:
        """Let no more requests fail."""
        with self.lock:
            self._faults.clear()

    def deny(self, permission: str) -> None:
        """Take a permission away; all others are there."""
        with self.lock:
            everything = self.allowed if self.allowed is not None else set(PERMISSIONS.values())
            self.allowed = everything - {permission}

    def calls(self, name: str = "", *, since: int = 0) -> list[Call]:
        """Return the requests to a method, or all."""
        with self.lock:
            return [one for one in self._calls[since:] if name in {"", one.name}]

    def members(self, name: str = "builders") -> dict[str, FakeMember]:
        """Return the members of a group that are not being deleted."""
        with self.lock:
            group = next(one for key, one in self.groups.items() if key[1] == name)
            return {id: one for id, one in group.members.items() if one.action != "DELETING"}

    def machine(self, name: str) -> FakeMachine:
        """Return a machine."""
        with self.lock:
            return next(one for key, one in self.engine.machines.items() if key[1] == name)

    def interrupt(self, name: str, group: str = "builders", *, repair: bool = False) -> None:
        """Interrupt an instance."""
        with self.lock:
            owner = next(one for key, one in self.groups.items() if key[1] == group)
            self.engine.stop_machine(owner, owner.members[name], repair=repair)

    def delete_group(self, name: str = "builders") -> None:
        """Delete a group together with its instances."""
        with self.lock:
            key = next(key for key in self.groups if key[1] == name)
            group = self.groups.pop(key)
            self.engine.delete(group, list(group.members.values()))
            for member in group.members.values():
                self.engine.machines.pop((member.zone, member.name), None)

    def use_machines(self) -> int:
        """Start a real SSH server for each machine that runs from now on; return their port."""
        self._has_machines = True
        return self._machines.port

    def write_credentials(self, folder: Path) -> Path:
        """Write the file of a service account whose tokens this cloud gives."""
        path = folder / "credentials.json"
        path.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": PROJECT,
                    "private_key_id": "1",
                    "private_key": _PRIVATE_KEY,
                    "client_email": ACCOUNT,
                    "token_uri": f"{self.url}/token",
                }
            )
        )
        return path

    def close(self) -> None:
        """Stop the fake cloud and all machines."""
        self._released.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # Machines.

    def _prepare_machine(self, machine: FakeMachine) -> None:
        machine.metadata = {
            str(one["key"]): str(one["value"])
            for one in self.template.get("metadata", {}).get("items", ())
        }
        if self._has_machines:
            machine.inner = machine.outer = self._machines.new_address()
            self._addresses[machine.number] = machine.inner
            self._host_keys[machine.number] = key = new_key()
            kind, value, *_ = key.export_public_key().decode().split()
            if machine.metadata.get("enable-guest-attributes") == "TRUE":
                machine.attributes[kind] = value

    def _start_machine(self, machine: FakeMachine) -> None:
        address = self._addresses.get(machine.number)
        if address is not None:
            machine.outer = address
            self._soon(self._started_machine(machine.number, address))

    async def _started_machine(self, number: str, address: str) -> None:
        """Start an SSH server, and wait until it listens: tests count the sockets that are open."""
        if spare := self._spares.pop(number, None):
            spare.close()
        self._machines.start(number, address, self._host_keys[number])
        while True:
            try:
                _, writer = await asyncio.open_connection(address, self._machines.port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    def _stop_machine(self, machine: FakeMachine, again: bool) -> None:  # noqa: FBT001 - a callback
        address = self._addresses.get(machine.number)
        if address is not None:
            self._soon(self._stopped_machine(machine.number, address, again=again))

    async def _stopped_machine(self, number: str, address: str, *, again: bool) -> None:
        """Stop an SSH server; one that starts again keeps as many sockets as it had."""
        await self._machines.stop(number, address=address if again else None)
        if spare := self._spares.pop(number, None):
            spare.close()
        if again:
            self._spares[number] = socket.socket(socket.AF_UNIX)

    def _soon(self, step: Coroutine[Any, Any, None]) -> None:
        """Change a machine in the loop of the cloud, one after the other."""
        self._steps.append(step)
        self._loop.call_soon_threadsafe(self._take_steps)

    def _take_steps(self) -> None:
        while self._steps:
            self._machine_step = self._loop.create_task(
                self._after(self._machine_step, self._steps.popleft())
            )

    async def _after(
        self, earlier: asyncio.Task[None] | None, step: Coroutine[Any, Any, None]
    ) -> None:
        if earlier is not None:
            await earlier
        await step

    async def _machines_are_settled(self) -> None:
        """Wait until all machines are as the state says."""
        with self.lock:
            self.engine.run()
        self._take_steps()
        if self._machine_step is not None:
            await asyncio.wait([self._machine_step])

    def _authorized(self, id: str, user: str, key: asyncssh.SSHKey) -> bool:
        with self.lock:
            machine = next(one for one in self.engine.machines.values() if one.number == id)
            public = " ".join(key.export_public_key().decode().split()[:2])
            return self.agent.accepts(machine, user, public)

    # The server.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._machines = Machines(self._authorized)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, keepalive_timeout=600, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server: Any = site._server
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()
        for spare in self._spares.values():
            spare.close()
        await self._machines.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = (await request.read()).decode()
        if request.path == "/" or request.path.startswith("/computeMetadata/"):
            return await self._metadata_server(request)
        found = self._contract.find(request.method, request.path)
        if found is None:
            self.problems.append(f"there is no {request.method} {request.path}")
            return web.json_response({}, status=404)
        method, path = found
        parameters = {**path, **request.query}
        call = Call(
            _zonal(method.name), method.name, parameters, json.loads(text) if text else None
        )
        self.problems += self._contract.check_query(method, dict(request.query))
        if method.request is not None:
            self.problems += self._contract.check(method.request, call.body, method.name)
        elif text:
            self.problems.append(f"{method.name} has a body: {text}")
        with self.lock:
            self._calls.append(call)
            fault = self._take_fault(call.name)
            released = self._released
        if isinstance(fault, Hang):
            await asyncio.to_thread(released.wait)
        if isinstance(fault, Hang | LostRequest):
            return _cut(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._tokens and not _is_signed(token):
            fault = fault or HttpFault(401, "authError", "Invalid Credentials")
        if isinstance(fault, HttpFault):
            return web.json_response(fault.body, status=fault.status)
        await self._machines_are_settled()
        status, body = self._answer(call, fault)
        if status == 200 and not self.lenient:
            self.problems += self._contract.check(method.response, body, f"answer to {method.name}")
        return (
            _cut(request)
            if isinstance(fault, LostReply)
            else web.json_response(body, status=status)
        )

    def _answer(self, call: Call, fault: Fault | None) -> tuple[int, Any]:
        with self.lock:
            self.engine.run()
            try:
                permission = PERMISSIONS.get(call.method) or PERMISSIONS[call.name]
                if self.allowed is not None and permission not in self.allowed:
                    raise Refusal(403, "forbidden", f"Required '{permission}' permission")  # noqa: TRY301 - one way for all
                body = answer(self, call, fault if isinstance(fault, OperationFault) else None)
            except Refusal as refusal:
                fault = HttpFault(refusal.status, refusal.reason, str(refusal))
                return fault.status, fault.body
            self.engine.run()
            return 200, body

    def _take_fault(self, name: str) -> Fault | None:
        for number, (where, fault, times) in enumerate(self._faults):
            if where in {"*", name}:
                if times is not None:
                    self._faults[number] = where, fault, times - 1
                    if times == 1:
                        del self._faults[number]
                return fault
        return None

    async def _metadata_server(self, request: web.Request) -> web.StreamResponse:
        """Answer as the metadata server of the machine that the manager runs on."""
        flavor = {"Metadata-Flavor": "Google"}
        if not request.path.endswith("/token"):
            account = {"email": ACCOUNT, "scopes": ["cloud-platform"], "aliases": ["default"]}
            body = account if "service-accounts" in request.path else {}
            return web.json_response(body, headers=flavor)
        with self.lock:
            fault, released = self._take_fault("token"), self._released
        if isinstance(fault, Hang):
            await asyncio.to_thread(released.wait)
            return _cut(request)
        if isinstance(fault, HttpFault):
            return web.json_response({"error": fault.reason}, status=fault.status, headers=flavor)
        token = secrets.token_hex(16)
        self._tokens.add(token)
        found = {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
        return web.json_response(found, headers=flavor)


def _zonal(name: str) -> str:
    """Return the name of the zonal method for a regional one."""
    for prefix, zonal in (
        ("regionInstanceGroupManagers.", "instanceGroupManagers."),
        ("regionOperations.", "zoneOperations."),
        ("regionInstanceTemplates.", "instanceTemplates."),
    ):
        if name.startswith(prefix):
            return zonal + name.removeprefix(prefix)
    return name


def _cut(request: web.Request) -> web.Response:
    """Break the connection."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


_KEY = rsa.generate_private_key(65537, 2048)
_PRIVATE_KEY = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _is_signed(token: str) -> bool:
    """Return whether a token is one that our service account has signed for this API."""
    signed, _, signature = token.rpartition(".")
    try:
        _KEY.public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    claims: Any = json.loads(_decoded(signed.partition(".")[2]))
    return bool(claims["iss"] == ACCOUNT and claims["exp"] > time.time())


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
