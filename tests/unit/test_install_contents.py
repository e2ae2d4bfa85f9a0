"""What an untrusted distribution says about itself is read with care."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting.errors import InstallError
from fleeting.install.contents import Contents, check_plugins, contents_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("metadata", "points"),
    [
        (b"Name: odd\nVersion: 1\nSummary: \xff\xfe\n", b"[fleeting]\nodd = odd\n"),
        (b"Name: odd\nVersion: 1\n", b"stray = x\n[fleeting]\nno sign\nodd = odd\n"),
        (b"Name: odd\nVersion: 1\n", b"[x]\n\xff = y\n[fleeting]\nodd=odd\n"),
    ],
)
def test_broken_metadata_is_read_as_far_as_it_goes(
    tmp_path: Path, metadata: bytes, points: bytes
) -> None:
    """Bytes that are no text and lines that mean nothing stop nobody who installs another one."""
    folder = tmp_path / "odd-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(metadata)
    (folder / "entry_points.txt").write_bytes(points)
    assert contents_of(tmp_path) == [Contents("odd", "1", ("odd",))]


def test_one_name_in_both_groups_is_one(tmp_path: Path) -> None:
    """A distribution that has a provider and a connector of one name registers that name."""
    folder = tmp_path / "both-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: both\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[fleeting]\nboth = x\n[fleeting.connectors]\nboth = x\n"
    )
    assert contents_of(tmp_path) == [Contents("both", "1", ("both",))]


@pytest.mark.parametrize("name", ["x\x1b]0;owned\x07", "a b", "../a", "a:1"])
def test_name_that_no_file_can_have_is_refused(name: str) -> None:
    """What could never be used is not installed, and does not reach the terminal as it is."""
    with pytest.raises(InstallError, match="no name that a file could refer to") as caught:
        check_plugins([], [Contents("odd", "1", (name,))], [])
    assert str(caught.value).isprintable()
