"""The proof on standard error that a script began and came to its end."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscaler.jobs.framing import Framing, new_token

HEAD = b"\x1etoken "
PIECES = st.sampled_from(
    [b"\x1e", b"\x1etok", b"\x1etoken", HEAD, b"\n", b"a", b"\xff", b"begin\n"]
)


class Play:
    """A framing, and what it passed on."""

    def __init__(self) -> None:
        self.passed = b""
        self.begins = 0
        self.framing = Framing("token", self._keep, self._begin)

    def feed(self, *chunks: bytes) -> None:
        """Pass chunks through to the end."""

        async def feed() -> None:
            for chunk in chunks:
                await self.framing.write(chunk)
            await self.framing.close()

        anyio.run(feed)

    async def _keep(self, data: bytes) -> None:
        self.passed += data

    def _begin(self) -> None:
        self.begins += 1


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_marks_are_removed_however_they_arrive(size: int) -> None:
    """All other bytes are passed on unchanged, and the status is found."""
    text = b"motd\n\x1etoken begin\na\x1e\x1etokeb\n\x00" + HEAD + b"end 17\nlate" + HEAD
    play = Play()
    play.feed(*(text[start : start + size] for start in range(0, len(text), size)))
    assert play.passed == b"motd\na\x1e\x1etokeb\n\x00late" + HEAD
    assert (play.framing.begun, play.begins, play.framing.status) == (True, 1, 17)
    assert play.framing.noise == b"motd\n"


@given(st.lists(PIECES))
def test_output_without_marks_is_exact(pieces: list[bytes]) -> None:
    """Nothing is lost or added, whatever looks like the start of a mark."""
    data = b"".join(pieces).replace(HEAD + b"begin\n", b"")
    play = Play()
    play.feed(*(data[start : start + 3] for start in range(0, len(data), 3)))
    if HEAD + b"begin\n" not in data:
        assert play.passed == data


def test_tokens_differ() -> None:
    """Each attempt has a token of its own."""
    assert len({new_token() for _ in range(100)}) == 100
