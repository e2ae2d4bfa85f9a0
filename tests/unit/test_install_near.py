"""Who misspells a name is told what it could have been."""

from __future__ import annotations

import socket
import threading

import pytest

from fleeting.install.commands import Sources
from fleeting.install.suggestions import fetch, index_of, listed_plugins, near_names


def test_near_names() -> None:
    """Our own plugins, and those that are known, are near if they are alike; the same is not."""
    assert near_names("fleeting-plugin-asw", []) == ["aws"]
    assert near_names("google-cloud", []) == ["googlecloud"]
    assert near_names("fleeting_plugin_hetzer", ["hetzner"]) == ["hetzner"]
    assert near_names("aws", []) == []
    assert near_names("zzz", ["hetzner"]) == []


def test_plugins_of_an_index() -> None:
    """Of the projects of an index those count that are named as plugins are."""
    page = '<a href="/x/">fleeting-plugin-b</a><br><a href="y">Fleeting_Plugin.a</a> <a>click</a>'
    assert listed_plugins(page) == ["a", "b"]


def test_index_that_is_asked() -> None:
    """It is the one of the options, else the one in the variables of the installer that is used."""
    environ = {"PIP_INDEX_URL": "https://p", "UV_DEFAULT_INDEX": "https://u"}
    assert index_of(Sources(index_url="https://o"), environ, uses_pip=True) == "https://o"
    assert index_of(Sources(extra_index_urls=("https://e",)), {}, uses_pip=True) == "https://e"
    assert index_of(Sources(), environ, uses_pip=True) == "https://p"
    assert index_of(Sources(), environ, uses_pip=False) == "https://u"
    assert index_of(Sources(no_index=True), environ, uses_pip=True) == ""
    assert index_of(Sources(), {}, uses_pip=True) == ""


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz"]
)
def test_server_that_speaks_no_http(answer: bytes) -> None:
    """Whatever answers, and however it breaks off, is as good as no answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = server.getsockname()
        assert fetch(f"http://{host}:{port}/", []) == (0, "")
        thread.join()
    assert fetch("http://user:secret@127.0.0.1/", []) == (0, "")
