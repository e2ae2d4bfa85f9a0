"""Names of instances, and the metadata values that the guest agent reads."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from fleeting_plugin_googlecloud._keys import (
    LoginKey,
    PasswordKey,
    add_ssh_key,
    add_windows_key,
    find_password,
    parse_login_key,
    ssh_key_end,
)
from fleeting_plugin_googlecloud._names import instance_names, request_id

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = LoginKey("private", "ssh-ed25519 AAAAours")
OTHER = LoginKey("private", "ssh-ed25519 AAAAother")
LEGAL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.mark.parametrize("base", ["b", "builders", "b" * 52, "b" * 53, "b" * 58])
def test_names_are_legal_and_repeatable(base: str) -> None:
    """The same operation has the same names, and other operations have others."""
    names = instance_names(base, "operation", 50)
    assert names == instance_names(base, "operation", 50)
    assert len({*names, *instance_names(base, "another", 50)}) == 100
    assert all(LEGAL.fullmatch(name) and name.startswith(f"{base[:52]}-") for name in names)
    assert {len(name) for name in names} == {min(63, len(base) + 11)}


def test_names_of_others_are_left_out() -> None:
    """A name that is in use is not chosen."""
    first, second = instance_names("builders", "operation", 2)
    third = instance_names("builders", "operation", 3)[2]
    assert instance_names("builders", "operation", 2, {first}) == (second, third)


def test_request_ids() -> None:
    """A request id is a UUID that follows from its parts."""
    assert request_id("a", "b") == request_id("a", "b")
    assert request_id("a", "b") != request_id("ab", "")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id("a"))


FOREIGN = [
    "ubuntu:ssh-rsa AAAAforeign someone@example.com",
    'admin:ssh-rsa AAAA google-ssh {"userName":"admin","expireOn":"2020-01-01T00:00:00+0000"}',
    "  a line that nothing understands\t",
    "",
    "fleeting:ssh-ed25519 AAAAstatic without an end",
]


def test_keys_of_others_are_kept() -> None:
    """Lines of others stay byte by byte, those that have expired or are broken as well."""
    before = "\n".join(FOREIGN)
    after = add_ssh_key(before, "fleeting", KEY, NOW + HOUR, NOW)
    assert after.startswith(f"{before}\nfleeting:ssh-ed25519 AAAAours google-ssh ")
    comment = json.loads(after.rpartition("google-ssh ")[2])
    assert comment == {"userName": "fleeting", "expireOn": "2026-11-30T13:00:00+0000"}
    assert ssh_key_end(after, "fleeting", KEY) == NOW + HOUR


def test_our_expired_keys_are_dropped() -> None:
    """Each write drops our keys that have expired, so that the value does not grow."""
    value = ""
    for number in range(100):
        key = LoginKey("", f"ssh-ed25519 AAAA{number}")
        value = add_ssh_key(value, "fleeting", key, NOW + HOUR * (number + 1), NOW + HOUR * number)
    assert value.count("\n") == 0
    value = add_ssh_key(value, "fleeting", KEY, NOW + HOUR * 200, NOW)
    assert len(value.split("\n")) == 2


def test_renewing_a_key() -> None:
    """A key is in the value once; the newest end counts."""
    value = add_ssh_key("", "fleeting", OTHER, NOW + HOUR, NOW)
    value = add_ssh_key(value, "fleeting", KEY, NOW + HOUR, NOW)
    value = add_ssh_key(value, "fleeting", KEY, NOW + 2 * HOUR, NOW)
    assert value.count("AAAAours") == value.count("AAAAother") == 1
    assert ssh_key_end(value, "fleeting", KEY) == NOW + 2 * HOUR
    assert ssh_key_end(value, "ubuntu", KEY) is None


def test_key_is_not_in_its_repr() -> None:
    """The private half of a key shows in no message."""
    key = LoginKey.generate()
    assert "PRIVATE" in key.private
    assert "PRIVATE" not in repr(key)
    assert parse_login_key(key.private).public == key.public


@pytest.mark.parametrize("text", ["", "secret", "-----BEGIN RSA PRIVATE KEY-----\nsecret\n"])
def test_wrong_keys(text: str) -> None:
    """A text that is not a key is refused without showing it."""
    with pytest.raises(ValueError, match="not a private key") as caught:
        parse_login_key(text)
    assert "secret" not in str(caught.value)


def test_windows_requests() -> None:
    """A request is one line of JSON; expired ones of ours go, those of others stay."""
    key = PasswordKey()
    foreign = '{"userName":"bob","email":"bob@example.com","expireOn":"2020-01-01T00:00:00Z"}'
    value = add_windows_key(foreign, "fleeting", key, NOW + HOUR, NOW)
    value = add_windows_key(value, "fleeting", key, NOW + 3 * HOUR, NOW + 2 * HOUR)
    first, second = value.split("\n")
    assert first == foreign
    assert json.loads(second)["hashFunction"] == "sha256"
    assert json.loads(second)["modulus"] == key.modulus


def test_answers_of_the_windows_agent() -> None:
    """The answer to our key is found among other lines; an error is an error."""
    key = PasswordKey()
    answer = {"modulus": key.modulus, "passwordFound": True, "encryptedPassword": "abc"}
    lines = ["booting", "[]", '{"modulus":"other","passwordFound":true}', json.dumps(answer)]
    assert find_password(lines[:-1], key) is None
    assert find_password(lines, key) == "abc"
    failed = json.dumps({"modulus": key.modulus, "errorMessage": "no such user"})
    with pytest.raises(ValueError, match="no such user"):
        find_password([failed], key)
    with pytest.raises(ValueError, match="not encrypted with this key"):
        key.decrypt("abcd")
