"""The door for foreign text."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import urllib.parse
from typing import Annotated, Any

import msgspec
import pytest

from fleeting._secret_keys import secret_values
from fleeting._secrets import MOST_PASSING, forms, hide_secrets, remember_passing, remember_secrets
from fleeting._text import foreign, plain, say, say_json, wrapped
from fleeting.errors import ConfigError, ProviderError

EVIL = "\x1b[2Jgone\n\x9b1Aerror: forged\u202e\r"


def test_foreign_text_is_one_short_line() -> None:
    """Line breaks become spaces, the rest is escaped, and the length is bounded."""
    assert foreign(EVIL) == r"\x1b[2Jgone \x9b1Aerror: forged\u202e"
    assert foreign("x" * 1000, 10) == "x" * 10 + "..."
    assert foreign("short", 5) == "short"


def test_a_line_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A message stays one line, whatever is in it; a lone surrogate can be printed, too."""
    say(f"failed: {EVIL}\udcff", err=True)
    assert capsys.readouterr().err == f"failed: {plain(EVIL)}\\udcff\n"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escaped as JSON does, and the document means the same."""
    say_json(json.dumps({"a": EVIL + "\U000e0001"}, indent=2, ensure_ascii=False))
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.splitlines())
    assert json.loads(printed) == {"a": EVIL + "\U000e0001"}


def test_log_messages_are_escaped() -> None:
    """Without a configuration of logging, warnings reach the terminal: they are escaped as well."""
    code = (
        "import logging\nfrom fleeting._text import guard_logs\nguard_logs()\n"
        f"logging.getLogger('x').warning('%s', {EVIL!r})\n"
        "try: raise ValueError('\\x1b[2J')\n"
        "except ValueError: logging.getLogger('x').exception('lost')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *others = done.stderr.splitlines()
    assert first == plain(EVIL)
    assert all(line.isprintable() for line in others)
    assert logging.lastResort is not None


def test_letters_that_show_nothing_are_escaped() -> None:
    """A name cannot look like another one by letters without a picture."""
    assert plain("a\u3164b\u200bc\u2028d\u2066e\ufeff") == r"a\u3164b\u200bc\u2028d\u2066e\ufeff"
    assert plain("Grüße, 漢字 ✓") == "Grüße, 漢字 ✓"


def test_an_error_is_one_bounded_line() -> None:
    """Its text passes the door when it is read; each problem of a file is a line."""
    assert str(ProviderError(EVIL)) == plain(EVIL)
    assert len(str(ProviderError("x" * 10_000))) < 1100
    assert str(ConfigError("one", "two\x1b")) == "one\ntwo\\x1b"


def test_long_messages_are_broken_between_words() -> None:
    """A word that is longer than the line stays whole."""
    assert wrapped("short", 40) == "short"
    assert wrapped("one two-three four", 9) == "one\n  two-three\n  four"
    assert wrapped("aa bb cc", 1) == "aa\n  bb\n  cc"


SECRET = 'it\'s/a "s3cret"+ü\\x'  # noqa: S105 - made up


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        repr({"key": SECRET}),
        repr(SECRET.encode()),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        urllib.parse.quote(SECRET),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote_plus(SECRET).lower(),
        plain(SECRET),
    ],
)
def test_a_secret_is_hidden_in_every_form(shown: str) -> None:
    """It is found within a longer text, quoted, escaped and percent-encoded."""
    remember_secrets([SECRET])
    assert "s3cret" not in plain(f"before {shown} after")
    assert plain(f"before {shown} after").startswith("before ")


def test_a_cut_shows_no_part_of_a_secret() -> None:
    """The secret is hidden first, and the text is cut then."""
    remember_secrets(["first-half-second-half"])
    assert "first" not in foreign("x first-half-second-half", 10)


def test_a_key_is_hidden_line_by_line() -> None:
    """A log has each line of a private key apart."""
    key = f"-----BEGIN KEY-----\n{'QWxsIHRoZSBzZWNyZXQ' * 3}\n-----END KEY-----\n"
    remember_secrets([key])
    assert "QWxs" not in plain(key)
    assert "QWxs" not in "".join(map(plain, key.splitlines()))


def test_short_secrets_are_left_alone() -> None:
    """A word such as `root` is part of other words."""
    assert forms("root") == set()
    assert forms("") == set()


def test_secrets_of_instances_are_forgotten() -> None:
    """Those of the newest instances are kept, and those of the operator always."""
    remember_secrets(["of-the-operator"])
    remember_passing(f"instance-{number}-password" for number in range(MOST_PASSING + 1))
    assert hide_secrets("of-the-operator instance-500-password") == "[hidden] [hidden]"
    assert hide_secrets("instance-0-password") == "instance-0-password"


@pytest.mark.parametrize(
    ("shown", "hidden"),
    [
        ("https://me:pa55word@h.example/x", "https://[hidden]@h.example/x"),
        ("https://ghp_t0ken@h.example", "https://[hidden]@h.example"),
        (
            "http://p.example?a=1&X-Amz-Signature=abc#x",
            "http://p.example?a=1&X-Amz-Signature=[hidden]",
        ),
        ("ssh://git@h.example:22/a@b", "ssh://git@h.example:22/a@b"),
        ("see https://h.example/@me:x", "see https://h.example/@me:x"),
    ],
)
def test_credentials_in_urls_are_hidden(shown: str, hidden: str) -> None:
    """Also those that were never remembered."""
    assert hide_secrets(shown) == hidden


class Inner(msgspec.Struct):
    """A table in a list."""

    pin: Annotated[int, msgspec.Meta(extra_json_schema={"writeOnly": True})] = 0


class Marked(msgspec.Struct):
    """Keys that are marked in all the ways that a type can be written."""

    plain: str = ""
    public_token: Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": False})] = ""
    one: Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})] = ""
    two: Annotated[str | None, msgspec.Meta(extra_json_schema={"writeOnly": True})] = None
    three: Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})] | None = None
    inner: list[Inner] = []
    table: Annotated[dict[str, Any], msgspec.Meta(extra_json_schema={"writeOnly": True})] = {}


def test_marked_keys_are_secrets() -> None:
    """A key is a secret by its mark or by its name, wherever its table is."""
    table = {
        "plain": "no",
        "public_token": "no",
        "one": "1",
        "two": "2",
        "three": "3",
        "inner": [{"pin": 4711}, {"unknown": "no"}],
        "table": {"a": ["5", True]},
        "access_token": "6",
        "key_path": "no",
        "home": "https://u:7@h",
    }
    assert set(secret_values(table, Marked)) == {"1", "2", "3", "4711", "5", "6", "u:7", "7"}


def test_json_hides_secrets_and_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A secret is hidden in values, also where JSON escapes its characters."""
    remember_secrets([SECRET, "nlooks-like-an-escape"])
    say_json(json.dumps({"a": [f"x {SECRET}", 1, None], "b": "\nlooks-like-an-escape"}))
    assert json.loads(capsys.readouterr().out) == {
        "a": ["x [hidden]", 1, None],
        "b": "\nlooks-like-an-escape",
    }
