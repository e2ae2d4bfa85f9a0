"""Making and reading keys, decrypting passwords, reading host keys."""

from __future__ import annotations

import base64

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fleeting_plugin_aws._keys import KeyPair, console_host_keys, decrypt_password, parse_key

PASSWORD = "correct horse;battery"  # noqa: S105 - made up


def new_key(kind: str) -> asyncssh.SSHKey:
    """Make a key of a type."""
    return asyncssh.generate_private_key(kind)  # pyright: ignore[reportUnknownMemberType]


@pytest.fixture(scope="module")
def launch_key() -> rsa.RSAPrivateKey:
    """Return a key like those of EC2's key pairs."""
    return rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey, form: PrivateFormat = PrivateFormat.TraditionalOpenSSL) -> str:
    """Return a key in the format of a key file."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def encrypted(key: rsa.RSAPrivateKey) -> str:
    """Return the password as EC2 returns it, with line ends around it."""
    cipher = key.public_key().encrypt(PASSWORD.encode(), padding.PKCS1v15())
    return f"\r\n{base64.b64encode(cipher).decode()}\r\n"


def test_generated_key() -> None:
    """The halves of a new key match, and the public one is long enough for AWS."""
    key = KeyPair.generate()
    private = asyncssh.import_private_key(key.private)
    assert private.export_public_key().split()[:2] == key.public.encode().split()[:2]
    assert len(key.public) >= 80
    assert KeyPair.generate().public != key.public


def test_private_key_is_not_in_the_repr() -> None:
    """The repr of a key does not contain its private half."""
    key = KeyPair.generate()
    assert key.private not in repr(key)
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
def test_keys_that_can_be_pushed(kind: str) -> None:
    """A configured key is read, and its public half is pushed."""
    given = new_key(kind)
    found = parse_key(given.export_private_key().decode())
    assert found.public.encode().split()[:2] == given.export_public_key().split()[:2]


def test_keys_that_cannot_be_pushed(launch_key: rsa.RSAPrivateKey) -> None:
    """Unusable keys are refused with a reason that does not quote them."""
    other = new_key("ecdsa-sha2-nistp256").export_private_key().decode()
    secret = launch_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    ).decode()
    for text, reason in (
        ("hunter2", "not a private key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n", "not a private key"),
        (other, "ed25519 and RSA"),
        (secret, "passphrase"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            parse_key(text)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.OpenSSH])
def test_password_is_decrypted(launch_key: rsa.RSAPrivateKey, form: PrivateFormat) -> None:
    """The key of the launch decrypts the password, in either key format."""
    assert decrypt_password(encrypted(launch_key), pem(launch_key, form)) == PASSWORD


def test_password_of_another_key(launch_key: rsa.RSAPrivateKey) -> None:
    """Another key or invalid data never yields the password."""
    other = rsa.generate_private_key(65537, 2048)
    try:
        assert decrypt_password(encrypted(launch_key), pem(other)) != PASSWORD
    except ValueError as error:
        assert "not encrypted with this key" in str(error)  # noqa: PT017 - it may do either
    with pytest.raises(ValueError, match="not encrypted with this key"):
        decrypt_password("!!!", pem(launch_key))
    with pytest.raises(ValueError, match="RSA keys only"):
        decrypt_password(encrypted(launch_key), KeyPair.generate().private)


def test_host_keys_of_a_console() -> None:
    """The host keys that were printed last are found in the console output."""
    console = (
        "[  1.0] boot\r\n-----BEGIN SSH HOST KEY KEYS-----\r\nssh-rsa AAAAold root@a\r\n"
        "-----END SSH HOST KEY KEYS-----\r\nrebooted\r\n"
        "ci-info: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r\n256 SHA256:x (ED25519)\r\n"
        "-----END SSH HOST KEY FINGERPRINTS-----\r\n"
        "-----BEGIN SSH HOST KEY KEYS-----\r\n"
        "ecdsa-sha2-nistp256 AAAAE2Vj+/= root@ip-10-0-0-1\r\n"
        "ssh-ed25519 AAAAC3Nz root@ip-10-0-0-1\r\n-----END SSH HOST KEY KEYS-----\r\nlogin: "
    )
    assert console_host_keys(console) == ("ecdsa-sha2-nistp256 AAAAE2Vj+/=", "ssh-ed25519 AAAAC3Nz")


@pytest.mark.parametrize("console", ["", "booting\n", "-----BEGIN SSH HOST KEY KEYS-----\nssh-rsa"])
def test_console_without_host_keys(console: str) -> None:
    """A console without a complete block of host keys has none."""
    assert console_host_keys(console) == ()
