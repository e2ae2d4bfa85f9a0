"""What an installer's output comes to: one sentence, and whose fault it is.

The outputs of three versions of the installers are kept beside the tests, as they were printed.
The patterns look for what these have in common, so that other versions are understood as well;
what none of them knows is told in the installer's own last words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fleeting.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("explain", "redacted")

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]*@")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


def redacted(text: str, secrets: Sequence[str] = (), *, ansi: bool = False) -> str:
    """Return a text without credentials: those in addresses, and those that are given.

    Args:
        text: what an installer prints.
        secrets: what must not be in it.
        ansi: whether the codes that steer a terminal stay.
    """
    text = _CREDENTIALS.sub("", text if ansi else _ANSI.sub("", text))
    for secret in filter(None, secrets):
        text = text.replace(secret, "****")
    return text


def explain(output: str, near: Callable[[str], Sequence[str]] | None = None) -> InstallError:
    """Return the failure that an output tells of.

    Args:
        output: all that the installer printed, without secrets.
        near: given a distribution that does not exist, names something that does and is alike.
    """
    # One line, as uv breaks its sentences where the terminal ends.
    text = " ".join(output.replace("│", " ").replace("╰─▶", " ").split())
    for finder in _FINDERS:
        if found := finder(text, output):
            return found
    if found := _missing(text, near):
        return found
    return InstallError(f"the installer failed: {_last_words(output)}")


def _machine(text: str, _output: str) -> InstallError | None:
    if re.search(r"No space left on device|Disk quota exceeded", text):
        return InstallError(
            "the disk is full, and nothing was installed; free some space and try again",
            retryable=True,
        )
    if match := re.search(r"Read-only file system|Permission denied", text):
        return InstallError(
            f"the environment, or a folder that the installer needs, cannot be written to "
            f"({match[0].lower()}); nothing was installed",
            retryable=True,
        )
    return None


def _hashes(text: str, _output: str) -> InstallError | None:
    match = re.search(rf"someone may have tampered with them\. ({_NAME})", text)
    match = match or re.search(rf"Hash mismatch for `({_NAME})", text)
    if match:
        return InstallError(
            f"what was sent for {match[1]} does not have the hash that was written down for it; "
            "find out why before you install it"
        )
    match = re.search(rf"none were provided for: ({_NAME})", text)
    match = match or re.search(rf"hashes their downloaded archives.*?hash\.\) ({_NAME})", text)
    if match:
        return InstallError(
            f"hashes are required, and {match[1]} has none; write one for it, and for all that it "
            "needs"
        )
    return None


def _python(text: str, _output: str) -> InstallError | None:
    current = wanted = what = ""
    if match := re.search(
        rf"Package '({_NAME})' requires a different Python: (\S+) not in '([^']*)'", text
    ):
        what, current, wanted = match.groups()
    elif match := re.search(
        rf"current Python version \((\S+)\) does not satisfy Python(\S+) and (?:all versions of )?"
        rf"({_NAME})",
        text,
    ):
        current, wanted, what = match.groups()
    elif match := re.search(
        r"require a different python version: (?P<all>.*?) ERROR: Could not find a version that "
        rf"satisfies the requirement (?P<name>{_NAME}).*?\(from versions: none\)",
        text,
    ):
        what = match["name"]
        wanted = match["all"].rpartition("Requires-Python ")[2]
    if not what:
        return None
    is_now = f", which is {current}" if current else ""
    return InstallError(
        f"{what} needs Python {wanted}, and not that of this environment{is_now}; install an "
        "older version of it, or fleeting with another Python"
    )


def _platform(text: str, _output: str) -> InstallError | None:
    match = re.search(r"(\S+) is not a supported wheel on this platform", text)
    match = match or re.search(rf"({_NAME}==\S+) has no wheels with a matching", text)
    if match:
        return InstallError(f"{match[1]} is made for another platform or another Python")
    return None


def _conflict(text: str, output: str) -> InstallError | None:
    if "ResolutionImpossible" in text:
        section = output.partition("The conflict is caused by:")[2].strip("\n").split("\n\n")[0]
        reasons = [" ".join(line.split()) for line in section.splitlines() if line.strip()]
    else:
        match = re.search(r"No solution found.*?Because (.*?), we can conclude", text)
        if match is None or re.search(r"not found in|no version of|is available", match[1]):
            return None
        reasons = re.split(r" and (?=all versions|\S+==\S+ depends|you require)", match[1])
    reasons = [
        re.sub(r"^all versions of (\S+) depend on", r"\1 depends on", reason) for reason in reasons
    ]
    return InstallError(
        f"it does not go together: {'; '.join(reasons) or 'the requirements exclude each other'}"
        " (nothing was installed)"
    )


def _login(text: str, _output: str) -> InstallError | None:
    match = re.search(
        r"Could not fetch URL (\S+): (?:401|403) |"
        r"An index URL \((\S+)\) could not be queried due to .*?\((?:401|403) |"
        r"HTTP error (?:401|403) while getting (\S+)|"
        r"\((?:401 Unauthorized|403 Forbidden)\) for url \((\S+)\)",
        text,
    )
    if match is None:
        return None
    url = next(filter(None, match.groups()))
    place = re.match(r"[^:]+://[^/]+", url)
    return InstallError(
        f"{url} wants credentials, or other ones; give them with `fleeting login "
        f"{place[0] if place else url}`",
        retryable=True,
    )


def _untrusted(text: str, _output: str) -> InstallError | None:
    match = re.search(r"located at (\S+) is not a trusted or secure host", text)
    if match is None or "No matching distribution" not in text:
        return None
    return InstallError(
        f"pip does not trust {match[1]}, as it is not asked through https; use that, or set "
        f"PIP_TRUSTED_HOST={match[1]}"
    )


def _download(text: str, _output: str) -> InstallError | None:
    match = re.search(
        r"incomplete-download|not enough bytes were received|before message length reached|"
        r"IncompleteRead|error reading a body|error decoding response body",
        text,
    )
    if match is None:
        return None
    where = re.search(rf"Failed to download `({_NAME})|URL: (\S+)", text)
    what = next(filter(None, where.groups())) if where else "a file"
    return InstallError(
        f"the download of {what} was cut off, and nothing was installed; try again", retryable=True
    )


def _wheel(text: str, output: str) -> InstallError | None:
    match = re.search(
        rf"Wheel '({_NAME})' located at \S+ is invalid|"
        rf"Failed to (?:download|read) `({_NAME}).*?(?:Failed to extract archive|"
        r"Failed to read (?:metadata|from zip)|Bad CRC|central directory)",
        text,
    )
    name = next(filter(None, match.groups())) if match else ""
    if not name and re.search(r"BadZipFile|Bad CRC|has an invalid wheel|invalid-wheel", text):
        collected = re.findall(rf"(?m)^(?:Collecting|Processing) ({_NAME}|\S+)", output)
        name = str(collected[-1]) if collected else "one of them"
    if not name:
        return None
    return InstallError(
        f"the wheel of {name} is broken, or was cut off on its way, and was not installed; "
        "try again, and tell its author if that does not help"
    )


def _network(text: str, _output: str) -> InstallError | None:
    reason = _reason(text)
    match = re.search(
        r"Could not fetch URL (\S+): (?!40[34] )|"
        r"Failed to fetch: (\S+) (?!.*\(404 Not Found\))|"
        r"while fetching (\S+)|"
        r"error sending request for url \((\S+)\)",
        text,
    )
    if match is None:
        return None
    url = next(filter(None, match.groups()))
    return InstallError(
        f"{url} cannot be reached ({reason}); look at the network, the proxy and the address",
        retryable=True,
    )


def _reason(text: str) -> str:
    known = {
        r"Connection refused": "the connection was refused",
        r"Name or service not known|dns error|Failed to resolve|nodename nor servname|getaddrinfo|"
        r"Temporary failure in name resolution": "its name is not known",
        r"timed out|Timeout": "it did not answer in time",
        r"certificate": "its certificate is not trusted",
        r"\b50[0-9]\b": "the server failed",
        r"unreachable": "the network is down",
    }
    for pattern, reason in known.items():
        if re.search(pattern, text):
            return reason
    return "the connection broke"


def _build(text: str, output: str) -> InstallError | None:
    match = re.search(r"Failed to build (?:installable wheels for |`|'?)([^\s`']+)", text)
    if match is None and "subprocess-exited-with-error" not in text:
        return None
    processed = re.findall(r"(?m)^(?:Collecting|Processing) (\S+)", output)
    name = match[1] if match else (processed[-1] if processed else "a package")
    return InstallError(
        f"{name} could not be built from its sources; see why with `-v`, or ask its author for a "
        "wheel"
    )


def _missing(text: str, near: Callable[[str], Sequence[str]] | None) -> InstallError | None:
    if match := re.search(
        r"HTTP error 404 while getting (\S+)|\(404 Not Found\) for url \((\S+)\)", text
    ):
        return InstallError(f"there is nothing at {match[1] or match[2]}")
    if match := re.search(r"Distribution not found at: (\S+)", text):
        return InstallError(f"there is nothing at {match[1]}")
    match = re.search(
        rf"satisfies the requirement (?P<requirement>(?P<name>{_NAME})[^\s(]*)"
        r"(?: \(from (?P<by>[^)]*)\))?.*?\(from versions: (?P<versions>[^)]*)\)",
        text,
    )
    if match:
        by = (
            ""
            if match["by"] is None or match["by"].startswith("-r")
            else match["by"].split("->")[-1]
        )
        return _no_such(match["name"], match["requirement"], match["versions"], by.strip(), near)
    if match := re.search(
        rf"Because ({_NAME}) was not found in [a-z ]*? and (?:all versions of )?(\S+) "
        r"(?:depends? on|require)",
        text,
    ):
        return _no_such(match[1], match[1], "none", "" if match[2] == "you" else match[2], near)
    if match := re.search(
        rf"(?:only (?P<known>{_NAME}\S*) is available|there is no version of \S+).*? "
        rf"(?P<by>\S+) (?:depends? on|require)s? (?P<requirement>(?P<name>{_NAME})[^\s,]*)",
        text,
    ):
        by = "" if match["by"] == "you" else match["by"]
        return _no_such(match["name"], match["requirement"], match["known"] or "others", by, near)
    return None


def _no_such(
    name: str,
    requirement: str,
    versions: str,
    by: str,
    near: Callable[[str], Sequence[str]] | None,
) -> InstallError:
    if by:
        return InstallError(
            f"{by} needs {requirement}, which is not to be had; nothing was installed"
        )
    if versions != "none":
        return InstallError(f"there is no {requirement}; there is {versions}")
    names = near(name) if near else ()
    hint = f"did you mean {' or '.join(names)}?" if names else "look at the name and the index"
    return InstallError(f"no plugin is to be had as {name}; {hint}")


def _last_words(output: str) -> str:
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    # An exception that pip did not expect is named at the end of its traceback.
    told = [line for line in lines if re.match(r"(?i)error:(?! Exception:)|\u00d7 ", line)]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    if told and causes:
        told = [f"{told[-1]}: {causes[-1].removeprefix('Caused by: ')}"]
    last = (told or lines or ["it said nothing"])[-1]
    return re.sub(r"(?i)^error: ?|^\u00d7 ", "", last)[:500].rstrip(".")


_FINDERS: tuple[Callable[[str, str], InstallError | None], ...] = (
    _machine,
    _hashes,
    _python,
    _platform,
    _login,
    _untrusted,
    _download,
    _wheel,
    _conflict,
    _network,
    _build,
)
