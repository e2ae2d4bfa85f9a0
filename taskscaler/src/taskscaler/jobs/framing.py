r"""The proof that a script began and came to its end, on its standard error.

An exit status proves little. A login shell that ignores its command, a `ForceCommand`
or a start-up file that ends early all report 0 although no script ran. So the shell that
starts the script (see `script`) writes marks with a random token around it:

    \x1etoken begin\n     the script starts now
    \x1etoken end 7\n     it ended with this status
    \x1etoken failed\n    it could not be started

`Framing` removes the marks and passes every other byte on unchanged. It holds bytes back
only while they may be the start of a mark, which begins with a control character that
hardly any output contains. Output before the first mark is not the script's, but what a
start-up file wrote; its end is kept to be quoted.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("Framing", "marks", "new_token")

_SEPARATOR = b"\x1e"
# Longer than any mark.
_MARK_BYTES = 80
_NOISE_BYTES = 2048


def new_token() -> str:
    """Return a token for one attempt; no output contains it by chance."""
    return f"taskscaler-{secrets.token_hex(8)}"


def marks(token: str) -> tuple[str, str, str]:
    """Return the commands that write the marks; the last one writes the status in `$_s`."""
    words = ("begin", "end $_s", "failed")
    begin, end, failed = (f'printf "\\036{token} {word}\\n"' for word in words)
    return begin, end, failed


class Framing:
    """Reads the marks in the standard error of one attempt.

    Args:
        token: of the attempt.
        sink: receives everything else.
        on_begin: called when the script begins.

    Attributes:
        begun: whether the script began.
        failed: whether it could not be started.
        status: its exit status; None while it has not come to its end.
        noise: the end of what was written before the script began.
    """

    def __init__(
        self,
        token: str,
        sink: Callable[[bytes], Awaitable[None]],
        on_begin: Callable[[], None],
    ) -> None:
        self.begun = self.failed = False
        self.status: int | None = None
        self.noise = b""
        self._head = _SEPARATOR + token.encode() + b" "
        self._mark = re.compile(re.escape(self._head) + rb"(?:(begin)|(failed)|end (\d{1,3}))\n")
        self._sink = sink
        self._on_begin = on_begin
        self._held = b""

    async def write(self, data: bytes) -> None:
        """Receive a chunk of standard error."""
        data, self._held = self._held + data, b""
        while mark := self._mark.search(data):
            await self._pass_on(data[: mark.start()])
            self._note(mark)
            data = data[mark.end() :]
        start = data.rfind(_SEPARATOR, max(0, len(data) - _MARK_BYTES))
        if start >= 0 and self._may_be_mark(data[start:]):
            data, self._held = data[:start], data[start:]
        await self._pass_on(data)

    async def close(self) -> None:
        """Pass on what was held back; there is nothing more to come."""
        held, self._held = self._held, b""
        await self._pass_on(held)

    def keep_noise(self, data: bytes) -> None:
        """Keep the end of some output if the script has not begun."""
        if not self.begun:
            self.noise = (self.noise + data)[-_NOISE_BYTES:]

    def _may_be_mark(self, text: bytes) -> bool:
        head = self._head[: len(text)]
        return text[: len(head)] == head and b"\n" not in text

    def _note(self, mark: re.Match[bytes]) -> None:
        begin, failed, status = mark.groups()
        if begin:
            self.begun = True
            self._on_begin()
        elif failed:
            self.failed = True
        else:
            self.status = int(status)

    async def _pass_on(self, data: bytes) -> None:
        if data:
            self.keep_noise(data)
            await self._sink(data)
