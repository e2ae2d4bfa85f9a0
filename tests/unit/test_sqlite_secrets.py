"""Secrets in a state file: sealed, bound to their record, and lost with their key."""

from __future__ import annotations

import base64
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fleeting.types import ConnectInfo
from taskscaler import StoreError
from taskscaler.core import ConnectRecord, OperationRecord
from taskscaler.storage import SqliteStore, read_records

if TYPE_CHECKING:
    from pathlib import Path

    from taskscaler.core import Record

pytestmark = pytest.mark.anyio

PASSWORD = "correct horse battery staple"  # noqa: S105 - of a test
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
OPERATION = OperationRecord("g", "op", 1, datetime(2026, 7, 14, tzinfo=UTC))


def connect(id: str) -> ConnectRecord:
    """Return a record with secrets."""
    info = ConnectInfo(id, "ssh", f"{id}.example.org", private_key=PRIVATE, password=PASSWORD)
    return ConnectRecord("g", id, None, info)


def new_key(path: Path) -> Path:
    """Write a key as an operator would."""
    path.write_bytes(base64.b64encode(path.name.encode().ljust(32, b"k")) + b"\n")
    path.chmod(0o600)
    return path


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of each file."""
    return {one.name: one.read_bytes() for one in directory.iterdir()}


def obey(message: str) -> None:
    """Run the command that a message recommends."""
    subprocess.run(["/bin/sh", "-c", message.split("`")[1]], check=True)


async def write(path: Path, *records: Record, key_file: Path | None = None) -> None:
    """Commit records to a file, and close it."""
    async with SqliteStore.open(path, key_file=key_file) as store:
        await store.commit((await store.load()).epoch, records, ())


async def load(path: Path, key_file: Path | None = None) -> set[Record]:
    """Return the records that the next holder of a file gets."""
    async with SqliteStore.open(path, key_file=key_file) as store:
        return set((await store.load()).records)


async def key_refusal(path: Path, key_file: Path | None) -> str:
    """Return why a key is refused, in one sentence."""
    with pytest.raises(StoreError) as caught:
        await load(path, key_file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_no_file_has_a_secret_in_it(tmp_path: Path) -> None:
    """Neither the database nor its log nor any other file contains a part of a secret."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        await store.commit(epoch, [connect("i-1")], ())
        files = contents(tmp_path)
        assert {"state", "state-wal", "state.key"} <= set(files)
        for content in files.values():
            for secret in (PASSWORD.encode(), b"OPENSSH PRIVATE", b"b3BlbnNzaC1r", b"example.org"):
                assert secret not in content
                assert base64.b64encode(secret)[:8] not in content
    assert await load(tmp_path / "state") == {connect("i-1")}


async def test_equal_secrets_are_sealed_differently(tmp_path: Path) -> None:
    """Equal passwords cannot be recognized, whether of two instances or of one."""
    await write(tmp_path / "state", connect("i-1"))
    with closing(sqlite3.connect(tmp_path / "state")) as file:
        before = file.execute("SELECT body FROM records").fetchall()
    await write(tmp_path / "state", connect("i-1"))
    with closing(sqlite3.connect(tmp_path / "state")) as file:
        assert file.execute("SELECT body FROM records").fetchall() != before


async def test_without_secrets_there_is_no_key(tmp_path: Path) -> None:
    """The key is created with the first secret, not before."""
    await write(tmp_path / "state", OPERATION)
    assert not (tmp_path / "state.key").exists()
    await write(tmp_path / "state", connect("i-1"))
    assert (tmp_path / "state.key").exists()


@pytest.mark.parametrize("how", ["lost", "another"])
async def test_secrets_are_lost_with_their_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Without the right key, secrets are deleted with one warning, and the rest stays."""
    path, key = tmp_path / "state", tmp_path / "state.key"
    await write(path, connect("i-1"), connect("i-2"), OPERATION)
    key.unlink()
    if how == "another":
        new_key(key)
    with caplog.at_level(logging.WARNING):
        assert await load(path) == {OPERATION}
        assert await load(path) == {OPERATION}
    (warning,) = caplog.messages
    assert "2 instances" in warning
    await write(path, connect("i-1"))
    assert await load(path) == {OPERATION, connect("i-1")}


async def test_sealed_rows_cannot_change_places(tmp_path: Path) -> None:
    """A secret that was sealed for one instance cannot be unsealed as that of another one."""
    path = tmp_path / "state"
    await write(path, connect("i-1"), connect("i-2"))
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE records SET body = (SELECT body FROM records WHERE id = 'i-1') WHERE id = 'i-2'"
        )
    assert await load(path) == {connect("i-1")}


@pytest.mark.parametrize("body", ["", "AAAA", "no Base64 \u00fc", "A" * 100])
async def test_a_damaged_seal_is_a_lost_secret(tmp_path: Path, body: str) -> None:
    """If a sealed record was changed, only this record is lost."""
    path = tmp_path / "state"
    await write(path, connect("i-1"), OPERATION)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE records SET body = ? WHERE kind = 'connect'", (body,))
    assert await load(path) == {OPERATION}


async def test_an_operator_can_name_a_key(tmp_path: Path) -> None:
    """The key file that is named is used, and no other one is created."""
    path, key = tmp_path / "state", new_key(tmp_path / "elsewhere")
    await write(path, connect("i-1"), key_file=key)
    assert not (tmp_path / "state.key").exists()
    assert await load(path, key) == {connect("i-1")}


async def test_a_missing_key_of_the_operator_is_refused(tmp_path: Path) -> None:
    """A key file that is named must exist; the message has a command that creates one."""
    key = tmp_path / "my key"
    message = await key_refusal(tmp_path / "state", key)
    obey(message)
    await write(tmp_path / "state", connect("i-1"), key_file=key)


async def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message has the command that makes the key private."""
    key = new_key(tmp_path / "key")
    key.chmod(0o640)
    message = await key_refusal(tmp_path / "state", key)
    obey(message)
    assert await load(tmp_path / "state", key) == set()


@pytest.mark.parametrize("content", ["", "short", "A" * 43 + "=" + "AAAA", "\u00fc"])
async def test_a_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    """The message does not repeat the content of the file."""
    (tmp_path / "state.key").write_text(content)
    (tmp_path / "state.key").chmod(0o600)
    message = await key_refusal(tmp_path / "state", None)
    assert "must hold 32 bytes in Base64" in message
    assert not content or content not in message


async def test_a_key_that_cannot_be_written_fails_its_commit(tmp_path: Path) -> None:
    """If the key cannot be written, secrets are not stored, and other commits work."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        (tmp_path / "state.key").mkdir()
        with pytest.raises(StoreError, match=r"state\.key cannot be written"):
            await store.commit(epoch, [connect("i-1")], ())
        await store.commit(epoch, [OPERATION], ())
        (tmp_path / "state.key").rmdir()
        await store.commit(epoch, [connect("i-1")], ())
    assert await load(tmp_path / "state") == {OPERATION, connect("i-1")}


async def test_reading_needs_no_key(tmp_path: Path) -> None:
    """Without the key, all records except the secrets can be read."""
    await write(tmp_path / "state", connect("i-1"), OPERATION)
    (tmp_path / "state.key").unlink()
    assert read_records(tmp_path / "state") == (OPERATION,)


def test_nothing_heavy_is_imported_early() -> None:
    """SQLite is imported with its store, and cryptography with the first secret."""
    program = (
        "import sys, taskscaler.storage\n"
        "assert not {'sqlite3', 'cryptography'} & set(sys.modules)\n"
        "import taskscaler.storage._sqlite\n"
        "assert not {'cryptography', 'asyncssh'} & set(sys.modules)\n"
    )
    # Measuring the coverage of child processes would import a database into each of them.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    subprocess.run([sys.executable, "-c", program], check=True, env=plain)
