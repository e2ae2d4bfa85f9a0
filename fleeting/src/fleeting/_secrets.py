"""The secrets that this process knows, and what hides them in a text.

Secrets come from configuration files, options, environment variables and providers, and appear in
the messages of libraries that know nothing of secrets. So there is one register for the whole
process: what reads a secret adds it, and `fleeting._text` hides it in everything that is shown,
logged or stored.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = (
    "credentials_in",
    "forms",
    "hide_secrets",
    "hide_settings",
    "is_secret_name",
    "remember_passing",
    "remember_secrets",
    "remember_settings",
    "secret_variables",
)

HIDDEN = "[hidden]"
# A shorter text is part of other words by chance.
SHORTEST = 6
# A line of a key in PEM or OpenSSH format is a secret as well.
LINE_SHORTEST = 16
# Each instance may have a password or a key of its own; those of older ones are forgotten.
MOST_PASSING = 500

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)?|secret|token|credential|private|(api|access|(^|[_. -]))_?keys?$",
    re.IGNORECASE,
)
_PLACE_NAME = re.compile(r"(path|file|dir|id|name|arn|url|public_key)s?$", re.IGNORECASE)
# The part of a URL before its host, and values of its query that are credentials.
_IN_URL = re.compile(
    r"(?<=://)[^/\s'\"<>]*:[^/\s'\"<>]*(?=@)"
    r"|(?<=https://)(?!\*+@)[^/\s'\"<>]+(?=@)"
    r"|(?:(?<=\?)|(?<=&))(?P<name>[\w.-]*(?:token|secret|password|signature|credential)[\w.-]*=)"
    r"[^\s&'\"<>]+",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"://([^/\s@]*):([^/\s]*)@|https://([^/\s:]+)@")

# The forms of secrets: of the operator's, and of instances in the order in which they came.
_lasting: set[str] = set()
_passing: dict[str, None] = {}
_settings: set[str] = set()


@functools.cache
def is_secret_name(name: str) -> bool:
    """Return whether a key or a variable with this name holds a secret.

    Values of keys such as `key_path`, `token_file` or `secret_id` are not secrets.
    """
    return bool(_SECRET_NAME.search(name)) and not _PLACE_NAME.search(name)


def secret_variables(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield the values of environment variables that are secrets, by their names."""
    for name, value in variables.items():
        # The name of a variable with the path of a file often does not say so.
        if is_secret_name(name) and not value.startswith(("/", "~", ".")):
            yield value
        yield from credentials_in(value)


def credentials_in(text: str) -> Iterator[str]:
    """Yield the credentials in the URLs of a text."""
    if "://" in text:
        for user, password, token in _USER_INFO.findall(text):
            yield from ((f"{user}:{password}", password) if password else (token,))


def remember_secrets(secrets: Iterable[str]) -> None:
    """Hide these texts from now on, in whatever form they appear."""
    for secret in secrets:
        _lasting.update(forms(secret))


def remember_passing(secrets: Iterable[str]) -> None:
    """Hide these texts until many others have followed: an instance has them."""
    for secret in secrets:
        for form in forms(secret):
            # The newest are kept.
            _passing.pop(form, None)
            _passing[form] = None
    while len(_passing) > MOST_PASSING:
        del _passing[next(iter(_passing))]


def remember_settings(texts: Iterable[str]) -> None:
    """Hide these texts from now on where a bug is described: only the plugin knows them."""
    _settings.update(text for text in texts if len(text) >= SHORTEST)


def hide_secrets(text: str) -> str:
    """Return a text without the known secrets, and without the credentials in its URLs."""
    found = [form for form in (*_lasting, *_passing) if form in text]
    for form in sorted(found, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    if "://" in text:
        text = _IN_URL.sub(lambda match: f"{match['name'] or ''}{HIDDEN}", text)
    return text


def hide_settings(text: str) -> str:
    """Return a text without any long text of a plugin's settings."""
    for one in sorted(_settings, key=len, reverse=True):
        text = text.replace(one, HIDDEN)
    return text


def forms(secret: str, shortest: int = SHORTEST) -> set[str]:
    """Return the forms in which a secret may occur in a text: whole, escaped, and line by line."""
    import html
    import json
    import shlex
    from urllib.parse import quote, quote_plus, unquote

    if len(secret.strip()) < shortest:
        return set()
    lines = secret.splitlines() if "\n" in secret else []
    whole = {secret, secret.strip(), unquote(secret), " ".join(secret.split())}
    whole |= {line for line in lines if len(line) >= LINE_SHORTEST and "---" not in line}
    found: set[str] = set(whole)
    for text in whole:
        # A lone surrogate cannot be encoded, and is not part of a text that a server has sent.
        data = text.encode(errors="replace")
        quoted = {quote(data, safe=""), quote(data), quote_plus(data)}
        found |= quoted | {re.sub("%..", lambda code: code[0].lower(), one) for one in quoted}
        found |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
        found |= {repr(text)[1:-1], ascii(text)[1:-1], repr(data)[2:-1]}
        found |= {text.encode("unicode_escape").decode(), shlex.quote(text).strip("'")}
        found |= {html.escape(text), html.escape(text, quote=False)}
    return {form for form in found if len(form) >= shortest}
