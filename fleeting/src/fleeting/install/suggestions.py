"""Names like the one that does not exist: ours, the installed ones, and those of a small index."""

from __future__ import annotations

import base64
import difflib
import re
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fleeting._references import PREFIX, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fleeting.install.commands import Sources
    from fleeting.install.credentials import Credential

__all__ = ("fetch", "index_of", "listed_plugins", "near_names")

KNOWN = ("aws", "azure", "docker", "googlecloud", "static")
# A private index has a few hundred names; the public one has several ten million bytes of them.
_LIMIT = 1_000_000
_PATIENCE_SECONDS = 5.0


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that somebody could have meant, the nearest first.

    Args:
        name: of a plugin or of its distribution.
        known: names of plugins.
    """
    wanted = canonical(name).removeprefix(PREFIX)
    candidates = sorted({*known, *KNOWN} - {wanted})
    return difflib.get_close_matches(wanted, candidates, n=3, cutoff=0.6)


def index_of(sources: Sources, environ: Mapping[str, str], *, uses_pip: bool) -> str:
    """Return the address of the index that is asked, as far as it is said here."""
    names = ("PIP_INDEX_URL",) if uses_pip else ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
    set_before = next((environ[name] for name in names if environ.get(name)), "")
    extra = sources.extra_index_urls[0] if sources.extra_index_urls else ""
    return "" if sources.no_index else sources.index_url or extra or set_before


def listed_plugins(page: str) -> list[str]:
    """Return the plugins among the projects of an index, whose page is given."""
    projects = re.findall(r"<a[^>]*>\s*([A-Za-z0-9._-]+)\s*</a>", page)
    return sorted(
        canonical(name).removeprefix(PREFIX)
        for name in projects
        if canonical(name).startswith(PREFIX)
    )


def fetch(url: str, credentials: Sequence[Credential]) -> tuple[int, str]:
    """Get a page, if it comes soon and is small.

    Returns:
        The status, and the page; 0 if there was no answer, and no text if it was too long.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return 0, ""
    request = urllib.request.Request(url)  # noqa: S310 - its scheme was looked at
    for entry in credentials:
        if entry.host == parts.hostname:
            pair = base64.b64encode(f"{entry.username}:{entry.password}".encode()).decode()
            # It does not follow a redirection to somebody else.
            request.add_unredirected_header("Authorization", f"Basic {pair}")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:  # noqa: S310
            body = answer.read(_LIMIT + 1)
            status: int = answer.status
    except urllib.request.HTTPError as error:
        with error:
            return error.code, ""
    except (OSError, ValueError, HTTPException):
        # Whatever is there speaks no HTTP, or the address is none.
        return 0, ""
    return status, "" if len(body) > _LIMIT else body.decode(errors="replace")
