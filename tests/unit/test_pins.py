"""Pinned host keys."""

from __future__ import annotations

from fleeting.connectors._pins import Pins


def test_the_first_key_stays() -> None:
    """Another key for the same instance at the same address is refused and not pinned."""
    pins = Pins(2)
    assert pins.find(("h", 22, "i", "")) is None
    assert pins.keep(("h", 22, "i", ""), "first")
    assert pins.keep(("h", 22, "i", ""), "first")
    assert not pins.keep(("h", 22, "i", ""), "second")
    assert pins.find(("h", 22, "i", "")) == "first"
    assert pins.find(("h", 22, "another", "")) is None
    assert pins.find(("h", 22, "i", "the next")) is None


def test_the_least_recently_used_pin_is_dropped() -> None:
    """When there are too many pins, the least recently used one is dropped."""
    pins = Pins(2)
    pins.keep(("h", 22, "a", ""), "key a")
    pins.keep(("h", 22, "b", ""), "key b")
    assert pins.find(("h", 22, "a", "")) == "key a"
    pins.keep(("h", 22, "c", ""), "key c")
    assert pins.find(("h", 22, "b", "")) is None
    assert (pins.find(("h", 22, "a", "")), pins.find(("h", 22, "c", ""))) == ("key a", "key c")
