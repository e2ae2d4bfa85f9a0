"""Wheels and projects of plugins that do not exist, and an index on loopback that has them."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

__all__ = ("MODULE", "Index", "Switches", "make_project", "make_wheel")

# A plugin that works as far as a plugin can without a group.
MODULE = """
import contextlib
import msgspec
from fleeting.abc import Provider
from fleeting.plugin import hookimpl

class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass

class MadeUp(Provider):
    name = {name!r}
    config_type = Config
    def open(self, config, settings):
        return contextlib.nullcontext()
    async def check(self, config, settings):
        return []

@hookimpl
def fleeting_provider():
    return MadeUp()
"""

# The smallest build backend: it needs nothing, so that building needs no network.
BACKEND = """
import pathlib, shutil

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    wheel = next(pathlib.Path(__file__).parent.glob("built/*.whl"))
    shutil.copy(wheel, wheel_directory)
    return wheel.name
"""


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0.0",
    *,
    plugin: str | None = None,
    requires: Iterable[str] = (),
    python: str = ">=3.11",
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write the wheel of a distribution.

    Args:
        folder: where to.
        name: of the distribution.
        version: of it.
        plugin: the name that it registers; None is that of its distribution, "" none.
        requires: what it requires.
        python: the versions of Python it is for.
        more: further files.
    """
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    plugin = name.removeprefix("fleeting-plugin-") if plugin is None else plugin
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    header = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}/__init__.py": MODULE.format(name=plugin) if plugin else "",
        **(more or {}),
        f"{info}/METADATA": f"{header}Requires-Python: {python}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if plugin:
        files[f"{info}/entry_points.txt"] = f"[fleeting]\n{plugin} = {module}\n"
    lines = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,\n"])
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def make_project(folder: Path, name: str, version: str = "1.0.0") -> Path:
    """Write a project that builds without the network."""
    make_wheel(folder / "built", name, version)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
    )
    return folder


@dataclass
class Switches:
    """The behavior of an index towards its clients.

    Attributes:
        credentials: the user's name and the password that it wants, or None.
        cut_off: whether it hangs up in the middle of a file.
        fails: whether it answers everything with an error of its own.
        hold: while it is cleared, requests for files wait.
        asked: set as soon as a file is asked for.
    """

    credentials: tuple[str, str] | None = None
    cut_off: bool = False
    fails: bool = False
    hold: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)


class Index:
    """A static simple index on loopback, of a folder of wheels, with switches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.switches = Switches()
        self.switches.hold.set()
        self.requests: list[str] = []
        index = self

        class Handler(_Handler):
            owner = index

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def host(self) -> str:
        """Return its address without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Return the address that an installer is given."""
        return f"{self.host}/simple"

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the requests that wait, and stop."""
        self.switches.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Index

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        switches = self.owner.switches
        self.owner.requests.append(self.path)
        if switches.fails:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"", with_body=with_body)
        elif switches.credentials and self.headers["Authorization"] != _basic(switches.credentials):
            self._send(HTTPStatus.UNAUTHORIZED, b"", with_body=with_body)
        elif self.path.startswith("/files/"):
            self._send_file(self.owner.folder / Path(self.path).name, with_body=with_body)
        else:
            page = self._page()
            status = HTTPStatus.OK if page else HTTPStatus.NOT_FOUND
            self._send(status, page.encode(), with_body=with_body)

    def _page(self) -> str:
        """Return the list of all projects, or of the files of one."""
        wheels = sorted(self.owner.folder.glob("*.whl"))
        project = self.path.removeprefix("/simple").strip("/")
        names = {wheel: wheel.name.split("-")[0].replace("_", "-") for wheel in wheels}
        if not project:
            links = sorted(set(names.values()))
            return "".join(f'<a href="/simple/{name}/">{name}</a>\n' for name in links)
        return "".join(_link(wheel) for wheel in wheels if names[wheel] == project)

    def _send_file(self, path: Path, *, with_body: bool) -> None:
        if not path.exists():
            self._send(HTTPStatus.NOT_FOUND, b"", with_body=with_body)
            return
        if with_body:
            self.owner.switches.asked.set()
            self.owner.switches.hold.wait()
        self._send(HTTPStatus.OK, path.read_bytes(), with_body=with_body)

    def _send(self, status: HTTPStatus, body: bytes, *, with_body: bool) -> None:
        is_cut = self.owner.switches.cut_off and self.path.startswith("/files/")
        # The client may have been interrupted meanwhile.
        with suppress(ConnectionError):
            self._write(status, body, is_cut=is_cut, with_body=with_body)

    def _write(self, status: HTTPStatus, body: bytes, *, is_cut: bool, with_body: bool) -> None:
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="made up"')
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = is_cut


def _link(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        # The text is looked for as it stands, since some of the wheels are broken.
        match = re.search(r"Requires-Python: (\S+)", archive.read(name).decode())
    python = (match[1] if match else "").replace(">", "&gt;")
    return f'<a href="/files/{wheel.name}" data-requires-python="{python}">{wheel.name}</a>\n'


def _basic(credentials: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
